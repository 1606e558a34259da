{{/* Relations between values: autoscaling, and how it is turned on. */}}
{{- define "fanfare.checkScaling" -}}
{{- $faults := list -}}
{{- $scaling := .Values.autoscaling -}}
{{- $mode := toString $scaling.mode -}}
{{- /* YAML takes a bare off for false. */ -}}
{{- if not (has $mode (list "off" "false" "hpa" "keda")) -}}
{{- $faults = append $faults (printf "autoscaling.mode is %q: set \"off\", hpa or keda, and one of them only, because KEDA makes an HPA of its own and the two would work against each other" $mode) -}}
{{- end -}}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) -}}
{{- $faults = append $faults (printf "autoscaling.minReplicas is %d, more than autoscaling.maxReplicas, %d" (int $scaling.minReplicas) (int $scaling.maxReplicas)) -}}
{{- end -}}
{{- if include "fanfare.autoscaled" . -}}
{{- $asksApi := and (eq $mode "keda") (eq $scaling.keda.trigger "metrics-api") -}}
{{- $sessions := and $scaling.sessionsPercent (not $asksApi) -}}
{{- if not (or $scaling.queueTarget $sessions $scaling.cpuPercent $scaling.memoryPercent) -}}
{{- $faults = append $faults (printf "autoscaling.mode is %s, and nothing counts: set one of queueTarget, sessionsPercent, cpuPercent and memoryPercent%s" $mode (ternary "; by trigger metrics-api sessions do not count" "" $asksApi)) -}}
{{- end -}}
{{- $faults = concat $faults (include "fanfare.checkRequests" . | fromJsonArray) (include "fanfare.checkCapacity" . | fromJsonArray) -}}
{{- end -}}
{{- if eq $mode "keda" -}}
{{- $keda := $scaling.keda -}}
{{- if and (eq $keda.trigger "prometheus") (not $keda.prometheusAddress) (or $scaling.queueTarget $scaling.sessionsPercent) -}}
{{- $faults = append $faults "autoscaling.keda.trigger is prometheus, and there is no address: set autoscaling.keda.prometheusAddress, or trigger: metrics-api" -}}
{{- end -}}
{{- if and (eq $keda.trigger "metrics-api") (not .Values.apiService.enabled) -}}
{{- $faults = append $faults "autoscaling.keda.trigger is metrics-api, which asks the API, and apiService.enabled is false: set it to true, or trigger: prometheus" -}}
{{- end -}}
{{- end -}}
{{- toJson $faults -}}
{{- end -}}

{{/* Percents are of what a container requests. */}}
{{- define "fanfare.checkRequests" -}}
{{- $faults := list -}}
{{- $scaling := .Values.autoscaling -}}
{{- $given := include "fanfare.resources" . | fromYaml -}}
{{- $requests := default dict $given.requests -}}
{{- $limits := default dict $given.limits -}}
{{- range $resource, $percent := dict "cpu" $scaling.cpuPercent "memory" $scaling.memoryPercent -}}
{{- /* A limit alone is the request too. */ -}}
{{- if and $percent (not (get $requests $resource)) (not (get $limits $resource)) -}}
{{- $faults = append $faults (printf "autoscaling.%sPercent is %v, of a request that resources does not have, so that the autoscaler never takes a node away: set resources.requests.%s, or %sPercent: 0" $resource $percent $resource $resource) -}}
{{- end -}}
{{- end -}}
{{- toJson $faults -}}
{{- end -}}

{{/* The queue must be able to hold what asks for maxReplicas nodes. */}}
{{- define "fanfare.checkCapacity" -}}
{{- $faults := list -}}
{{- if include "fanfare.queueScales" . -}}
{{- $scaling := .Values.autoscaling -}}
{{- $least := include "fanfare.queueLeast" . | int64 -}}
{{- $queue := default dict .Values.config.queue -}}
{{- if and (hasKey $queue "capacity") (lt (int64 $queue.capacity) $least) -}}
{{- $faults = append $faults (printf "config.queue.capacity is %d, and the queue could never ask for autoscaling.maxReplicas, %d nodes of autoscaling.queueTarget, %d each: priority low is refused from 70 %% of the capacity on, and an autoscaler goes up from 10 %% above its target. Set at least %d or leave it out, or set a smaller maxReplicas or queueTarget" (int64 $queue.capacity) (int64 $scaling.maxReplicas) (int64 $scaling.queueTarget) $least) -}}
{{- else if gt $least 100000000 -}}
{{- $faults = append $faults (printf "autoscaling.maxReplicas, %d, with autoscaling.queueTarget, %d, asks for a queue of %d entries, and it holds at most 100000000: set less of one of them, or queueTarget: 0" (int64 $scaling.maxReplicas) (int64 $scaling.queueTarget) $least) -}}
{{- end -}}
{{- end -}}
{{- toJson $faults -}}
{{- end -}}

{{/*
When replicas goes out of the Deployment, Kubernetes makes it 1, and nearly everyone is sent away before
the autoscaler has put it back. It stays only where somebody else owns the number too, and only with
server-side apply, which is Helm 4's. Without a cluster to ask nothing is found.
*/}}
{{- define "fanfare.checkHandover" -}}
{{- $faults := list -}}
{{- if include "fanfare.autoscaled" . -}}
{{- $name := include "fanfare.fullname" . -}}
{{- $live := lookup "apps/v1" "Deployment" .Release.Namespace $name | default dict -}}
{{- $nodes := dig "spec" "replicas" 1 $live | int64 -}}
{{- $mine := false -}}
{{- $others := false -}}
{{- range dig "metadata" "managedFields" list $live -}}
{{- if hasKey (dig "fieldsV1" "f:spec" dict .) "f:replicas" -}}
{{- if and (eq .manager "helm") (eq (default "" .subresource) "") -}}{{- $mine = true -}}{{- else -}}{{- $others = true -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- $isThree := hasPrefix "v3." .Capabilities.HelmVersion.Version -}}
{{- if and (gt $nodes 1) $mine (or $isThree (not $others)) -}}
{{- $say := printf "autoscaling.mode is %s, and the number of nodes, %d, belongs to Helm: it would fall to 1 before the autoscaler puts it back, and nearly all sessions would be sent away." .Values.autoscaling.mode $nodes -}}
{{- if $isThree -}}
{{- $faults = append $faults (printf "%s Helm 3 cannot hand it over: do this upgrade with Helm 4 and --server-side=true, as docs/kubernetes.md says under Turning an autoscaler on" $say) -}}
{{- else -}}
{{- $faults = append $faults (printf "%s Hand it over first, then upgrade again:\n  kubectl -n %s get deployment %s -o go-template='{\"apiVersion\":\"apps/v1\",\"kind\":\"Deployment\",\"metadata\":{\"name\":\"%s\"},\"spec\":{\"replicas\":{{.spec.replicas}}}}' | kubectl -n %s apply --server-side --field-manager=handover --validate=false -f -" $say .Release.Namespace $name $name .Release.Namespace) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $faults -}}
{{- end -}}
