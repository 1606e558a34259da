{{/* Relations between values: how clients come in. */}}
{{- define "fanfare.checkService" -}}
{{- $faults := list -}}
{{- $service := .Values.service -}}
{{- if eq $service.type "ClusterIP" -}}
{{- range $key := list "nodePort" "externalTrafficPolicy" -}}
{{- if get $service $key -}}
{{- $faults = append $faults (printf "service.%s is set, and service.type is ClusterIP, which has none: set NodePort or LoadBalancer, or leave it out" $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if ne $service.type "LoadBalancer" -}}
{{- range $key := list "loadBalancerClass" "loadBalancerSourceRanges" -}}
{{- if get $service $key -}}
{{- $faults = append $faults (printf "service.%s is set, and service.type is %s: set LoadBalancer, or leave it out" $key $service.type) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $faults -}}
{{- end -}}

{{- define "fanfare.checkRoutes" -}}
{{- $faults := list -}}
{{- if and .Values.gatewayApi.enabled (not .Values.gatewayApi.parentRefs) -}}
{{- $faults = append $faults "gatewayApi.enabled is true without a Gateway: name one in gatewayApi.parentRefs" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- $faults = append $faults "ingress.enabled is true without a host: set ingress.hosts" -}}
{{- end -}}
{{- toJson $faults -}}
{{- end -}}
