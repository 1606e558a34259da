{{/*
What follows from the values: whether there is Redis, how many nodes, what a size means, where secrets
are. Facts that are numbers are texts here; whoever computes makes them int64.
*/}}
{{- define "fanfare.size" -}}
{{- $sizes := dict
  "small" (dict "connections" 100 "cpu" "250m" "memory" "512Mi")
  "medium" (dict "connections" 1000 "cpu" "500m" "memory" "1Gi")
  "large" (dict "connections" 5000 "cpu" "1" "memory" "2Gi")
  "enterprise" (dict "connections" 10000 "cpu" "2" "memory" "4Gi") -}}
{{- $size := get $sizes .Values.size -}}
{{- if not $size -}}
{{- fail (printf "\n\nsize is %q, which is none: set small, medium, large or enterprise\n" .Values.size) -}}
{{- end -}}
{{- toJson $size -}}
{{- end -}}

{{- define "fanfare.resources" -}}
{{- if .Values.resources -}}
{{- toYaml .Values.resources -}}
{{- else -}}
{{- $size := include "fanfare.size" . | fromJson -}}
requests:
  cpu: {{ $size.cpu | quote }}
  memory: {{ $size.memory }}
limits:
  memory: {{ $size.memory }}
{{- end -}}
{{- end -}}

{{/* A key of config, or what it is by default: (list . "session" "close_timeout_ms" 5000). */}}
{{- define "fanfare.setting" -}}
{{- $root := index . 0 -}}
{{- $section := default dict (get $root.Values.config (index . 1)) -}}
{{- if hasKey $section (index . 2) -}}
{{- int64 (get $section (index . 2)) -}}
{{- else -}}
{{- int64 (index . 3) -}}
{{- end -}}
{{- end -}}

{{- define "fanfare.connectionsMax" -}}
{{- $size := include "fanfare.size" . | fromJson -}}
{{- include "fanfare.setting" (list . "server" "connections_max" (int64 $size.connections)) -}}
{{- end -}}

{{- define "fanfare.hasRedis" -}}
{{- if or .Values.redis.url .Values.redis.existingSecret .Values.devValkey.enabled -}}yes{{- end -}}
{{- end -}}

{{/* Addresses of collectors as they stand in the values, as a list: of everything, or of one signal. */}}
{{- define "fanfare.collectors" -}}
{{- $telemetry := default dict .Values.config.telemetry -}}
{{- $all := list .Values.telemetry.endpoint -}}
{{- range list "traces_endpoint" "logs_endpoint" "metrics_endpoint" -}}
{{- $all = append $all (get $telemetry .) -}}
{{- end -}}
{{- toJson (without $all "" nil) -}}
{{- end -}}

{{- define "fanfare.hasCollector" -}}
{{- if include "fanfare.collectors" . | fromJsonArray -}}yes{{- end -}}
{{- end -}}

{{/* The address of Redis where it stands in the configuration, and not in a Secret. */}}
{{- define "fanfare.redisUrl" -}}
{{- if .Values.devValkey.enabled -}}
redis://{{ include "fanfare.fullname" . }}-valkey:6379
{{- else -}}
{{- .Values.redis.url -}}
{{- end -}}
{{- end -}}

{{- define "fanfare.hasPasswordFile" -}}
{{- if and .Values.redis.url .Values.redis.existingSecret -}}yes{{- end -}}
{{- end -}}

{{- define "fanfare.autoscaled" -}}
{{- if has .Values.autoscaling.mode (list "hpa" "keda") -}}yes{{- end -}}
{{- end -}}

{{- define "fanfare.severalNodes" -}}
{{- if or (include "fanfare.autoscaled" .) (gt (int .Values.replicaCount) 1) -}}yes{{- end -}}
{{- end -}}

{{- define "fanfare.ownToken" -}}
{{- if and (not .Values.auth.existingSecret) (or .Values.auth.hmacSecret .Values.auth.createSecret) -}}yes{{- end -}}
{{- end -}}

{{- define "fanfare.ownKeys" -}}
{{- if and (not .Values.api.existingSecret) (or .Values.api.keys .Values.api.createSecret) -}}yes{{- end -}}
{{- end -}}

{{/* Secret and key of the token secret, as a secretKeyRef; nothing where tokens have other keys. */}}
{{- define "fanfare.tokenRef" -}}
{{- if .Values.auth.existingSecret -}}
name: {{ .Values.auth.existingSecret | quote }}
key: {{ .Values.auth.secretKeys.hmacSecret | quote }}
{{- else if include "fanfare.ownToken" . -}}
name: {{ include "fanfare.fullname" . | quote }}
key: hmac-secret
{{- end -}}
{{- end -}}

{{/* The same of the keys of the API, all or one: (list . "keys") or (list . "key"). */}}
{{- define "fanfare.apiRef" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.api.existingSecret -}}
name: {{ $root.Values.api.existingSecret | quote }}
key: {{ get $root.Values.api.secretKeys (index . 1) | quote }}
{{- else if include "fanfare.ownKeys" $root -}}
name: {{ include "fanfare.fullname" $root | quote }}
key: {{ index . 1 | eq "key" | ternary "api-key" "api-keys" }}
{{- end -}}
{{- end -}}
