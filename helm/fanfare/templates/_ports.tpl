{{/*
To which ports nodes must be let, as lists: what networkPolicy.egress says, or what the addresses say.
*/}}
{{- define "fanfare.redisPorts" -}}
{{- if .Values.devValkey.enabled -}}
[6379]
{{- else if .Values.networkPolicy.egress.redisPorts -}}
{{- toJson .Values.networkPolicy.egress.redisPorts -}}
{{- else -}}
{{- $url := .Values.redis.url -}}
{{- $isSentinel := contains "-sentinel://" $url -}}
{{- $ports := list -}}
{{- range regexReplaceAll "^[a-z-]+://([^/?]*).*$" $url "${1}" | splitList "," -}}
{{- $ports = append $ports (regexFind "[0-9]+$" (regexFind ":[0-9]+$" .) | default (ternary "26379" "6379" $isSentinel)) -}}
{{- end -}}
{{- /* Sentinels only say where the master is. */ -}}
{{- if $isSentinel -}}{{- $ports = append $ports "6379" -}}{{- end -}}
{{- include "fanfare.numbers" ($ports | uniq) -}}
{{- end -}}
{{- end -}}

{{- define "fanfare.collectorPorts" -}}
{{- if .Values.networkPolicy.egress.collectorPorts -}}
{{- toJson .Values.networkPolicy.egress.collectorPorts -}}
{{- else -}}
{{- $ports := list -}}
{{- range include "fanfare.collectors" . | fromJsonArray -}}
{{- $host := regexReplaceAll "^[a-z]+://([^/?]*).*$" . "${1}" -}}
{{- $ports = append $ports (regexFind "[0-9]+$" (regexFind ":[0-9]+$" $host) | default (hasPrefix "https:" . | ternary "443" "80")) -}}
{{- end -}}
{{- include "fanfare.numbers" ($ports | uniq) -}}
{{- end -}}
{{- end -}}

{{- define "fanfare.numbers" -}}
[{{ join "," . }}]
{{- end -}}
