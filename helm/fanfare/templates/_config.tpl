{{/*
The configuration file: what config says, and over it what the chart sets. Secrets are not in it.
*/}}
{{- define "fanfare.config" -}}
{{- $own := dict
  "server" (dict "listen" (printf "%s:8080" .Values.listenAddress))
  "api" (dict "listen" (printf "%s:8081" .Values.listenAddress))
  "metrics" (dict "listen" (printf "%s:9090" .Values.listenAddress))
  "drain" (dict
    "window_ms" .Values.drain.windowMs
    "sessions_per_s" .Values.drain.sessionsPerSecond
    "delay_ms" .Values.drain.delayMs
    "commands_timeout_ms" .Values.drain.commandsTimeoutMs) -}}
{{- if include "fanfare.hasRedis" . -}}
{{- $_ := set $own "redis" (include "fanfare.redisConfig" . | fromJson) -}}
{{- else -}}
{{- $_ := set $own "cluster" (dict "alone" true) -}}
{{- end -}}
{{- if .Values.telemetry.endpoint -}}
{{- $_ := set $own "telemetry" (dict "endpoint" .Values.telemetry.endpoint "protocol" .Values.telemetry.protocol) -}}
{{- end -}}
{{- with include "fanfare.queueCapacityRaised" . -}}
{{- $_ := set $own "queue" (dict "capacity" (int64 .)) -}}
{{- end -}}
{{- $all := mergeOverwrite (deepCopy .Values.config) $own -}}
{{- include "fanfare.toml" (list "" $all) | trim -}}
{{- end -}}

{{- define "fanfare.redisConfig" -}}
{{- $redis := dict -}}
{{- with include "fanfare.redisUrl" . -}}
{{- $_ := set $redis "url" . -}}
{{- end -}}
{{- with .Values.redis.user -}}
{{- $_ := set $redis "user" . -}}
{{- end -}}
{{- if include "fanfare.hasPasswordFile" . -}}
{{- $_ := set $redis "password_file" "/run/secrets/fanfare/redis/password" -}}
{{- end -}}
{{- $tls := .Values.redis.tls -}}
{{- if $tls.existingSecret -}}
{{- if $tls.caKey -}}
{{- $_ := set $redis "tls_ca_file" "/run/secrets/fanfare/redis-tls/ca.crt" -}}
{{- end -}}
{{- if $tls.certificateKey -}}
{{- $_ := set $redis "tls_certificate_file" "/run/secrets/fanfare/redis-tls/tls.crt" -}}
{{- $_ := set $redis "tls_key_file" "/run/secrets/fanfare/redis-tls/tls.key" -}}
{{- end -}}
{{- end -}}
{{- with $tls.serverName -}}
{{- $_ := set $redis "tls_server_name" . -}}
{{- end -}}
{{- toJson $redis -}}
{{- end -}}
