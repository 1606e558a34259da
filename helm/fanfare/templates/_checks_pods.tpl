{{/*
Variables whose settings have a value of their own, each with that value. A variable wins over the file, so
that the chart would reckon with other settings than the nodes have: the grace period, the autoscaler's
targets, probes and policies.
*/}}
{{- define "fanfare.ownVariables" -}}
FANFARE_ENV: environment
FANFARE_SIZE: size
FANFARE_SERVER__NODE_ID: nothing, it is the name of the pod
FANFARE_SERVER__LISTEN: listenAddress
FANFARE_API__LISTEN: listenAddress
FANFARE_METRICS__LISTEN: listenAddress
FANFARE_API__KEYS: api.existingSecret or api.keys
FANFARE_AUTH__HMAC_SECRET: auth.existingSecret
FANFARE_CLUSTER__ALONE: redis
FANFARE_REDIS__URL: redis.existingSecret or redis.url
FANFARE_REDIS__SHARDS: redis.existingSecret with redis.secretKeys.shards
FANFARE_REDIS__TLS_CA_FILE: redis.tls
FANFARE_REDIS__TLS_CERTIFICATE_FILE: redis.tls
FANFARE_REDIS__TLS_KEY_FILE: redis.tls
FANFARE_REDIS__TLS_SERVER_NAME: redis.tls.serverName
FANFARE_DRAIN__WINDOW_MS: drain.windowMs
FANFARE_DRAIN__SESSIONS_PER_S: drain.sessionsPerSecond
FANFARE_DRAIN__DELAY_MS: drain.delayMs
FANFARE_DRAIN__COMMANDS_TIMEOUT_MS: drain.commandsTimeoutMs
FANFARE_SERVER__CONNECTIONS_MAX: config.server.connections_max
FANFARE_SESSION__CLOSE_TIMEOUT_MS: config.session.close_timeout_ms
FANFARE_REDIS__COMMAND_TIMEOUT_MS: config.redis.command_timeout_ms
FANFARE_QUEUE__CAPACITY: config.queue.capacity
FANFARE_TELEMETRY__ENDPOINT: telemetry.endpoint
FANFARE_TELEMETRY__PROTOCOL: telemetry.protocol
FANFARE_TELEMETRY__HEADERS: telemetry.headers.existingSecret
FANFARE_TELEMETRY__TRACES_ENDPOINT: config.telemetry.traces_endpoint
FANFARE_TELEMETRY__LOGS_ENDPOINT: config.telemetry.logs_endpoint
FANFARE_TELEMETRY__METRICS_ENDPOINT: config.telemetry.metrics_endpoint
FANFARE_TELEMETRY__K8S_POD_NAME: telemetry.endpoint
FANFARE_TELEMETRY__K8S_POD_UID: telemetry.endpoint
FANFARE_TELEMETRY__K8S_NAMESPACE_NAME: telemetry.endpoint
FANFARE_TELEMETRY__K8S_NODE_NAME: telemetry.endpoint
{{- /* Without these two values the login may come from elsewhere, a token that a container renews. */}}
{{- if .Values.redis.user }}
FANFARE_REDIS__USER: redis.user
{{- end }}
{{- if include "fanfare.hasPasswordFile" . }}
FANFARE_REDIS__PASSWORD_FILE: redis.existingSecret
{{- end }}
{{- end -}}

{{- define "fanfare.checkVariables" -}}
{{- $faults := list -}}
{{- $own := include "fanfare.ownVariables" . | fromYaml -}}
{{- $seen := list -}}
{{- range tpl (toYaml .Values.extraEnv) . | fromYamlArray -}}
{{- $name := default "" .name -}}
{{- if hasKey $own $name -}}
{{- $faults = append $faults (printf "extraEnv has %s, and the chart would not see it: set %s" $name (get $own $name)) -}}
{{- else if and (regexMatch "^FANFARE_.*(SECRET|KEYS?|PASSWORD|TOKEN|HEADERS)$" $name) (hasKey . "value") -}}
{{- $faults = append $faults (printf "extraEnv has %s in plain text, which everybody could read who may see the release: take it from a Secret, by valueFrom.secretKeyRef" $name) -}}
{{- end -}}
{{- if has $name $seen -}}
{{- $faults = append $faults (printf "extraEnv has %s twice: leave one of them out" $name) -}}
{{- end -}}
{{- $seen = append $seen $name -}}
{{- end -}}
{{- toJson $faults -}}
{{- end -}}
