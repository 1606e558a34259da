{{/*
What no schema can say: relations between values. Each fault says what is wrong and what to do, and all
are told at once.
*/}}
{{- define "fanfare.checks" -}}
{{- $faults := concat
  (include "fanfare.checkRedis" . | fromJsonArray)
  (include "fanfare.checkSecrets" . | fromJsonArray)
  (include "fanfare.checkScaling" . | fromJsonArray)
  (include "fanfare.checkStop" . | fromJsonArray)
  (include "fanfare.checkRest" . | fromJsonArray) -}}
{{- if $faults -}}
{{- fail (printf "\n\n%s\n" (join "\n" $faults)) -}}
{{- end -}}
{{- end -}}

{{- define "fanfare.checkRedis" -}}
{{- $faults := list -}}
{{- $redis := .Values.redis -}}
{{- $has := include "fanfare.hasRedis" . -}}
{{- $mode := .Values.autoscaling.mode -}}
{{- if and (not $has) (gt (int .Values.replicaCount) 1) (not (include "fanfare.autoscaled" .)) -}}
{{- $faults = append $faults (printf "replicaCount is %d, and there is no Redis: nodes without one hear nothing of each other. Set redis.url or redis.existingSecret, or replicaCount: 1" (int .Values.replicaCount)) -}}
{{- end -}}
{{- if and (not $has) (include "fanfare.autoscaled" .) -}}
{{- $faults = append $faults (printf "autoscaling.mode is %s, and there is no Redis: nodes without one hear nothing of each other. Set redis.url or redis.existingSecret, or autoscaling.mode: \"off\"" $mode) -}}
{{- end -}}
{{- if regexMatch "://[^/]*@" $redis.url -}}
{{- $faults = append $faults "redis.url has a login in it, which everybody could read who may see the release: put the whole address into a Secret, name it in redis.existingSecret, and leave redis.url out; or leave the login out and set redis.user" -}}
{{- end -}}
{{- if and $redis.user (not (include "fanfare.hasPasswordFile" .)) -}}
{{- $faults = append $faults "redis.user is set without a password: set redis.url and redis.existingSecret, whose key redis.secretKeys.password has it" -}}
{{- end -}}
{{- if and .Values.devValkey.enabled (or $redis.url $redis.existingSecret) -}}
{{- $faults = append $faults "devValkey.enabled is true, and redis.url or redis.existingSecret is set: nodes use one of them; leave the other out" -}}
{{- end -}}
{{- if and .Values.devValkey.enabled (eq .Values.environment "production") -}}
{{- $faults = append $faults "devValkey.enabled is true in production: it has no password and loses everything when it ends. Set redis.url or redis.existingSecret, or environment: staging" -}}
{{- end -}}
{{- toJson $faults -}}
{{- end -}}

{{- define "fanfare.checkSecrets" -}}
{{- $faults := list -}}
{{- $auth := default dict .Values.config.auth -}}
{{- if not (or (include "fanfare.tokenRef" .) $auth.keys $auth.anonymous) -}}
{{- $faults = append $faults "there is no token key, so that nobody could connect: set auth.existingSecret, auth.hmacSecret or config.auth.keys, or auth.createSecret: true" -}}
{{- end -}}
{{- if and .Values.auth.hmacSecret (lt (len .Values.auth.hmacSecret) 32) -}}
{{- $faults = append $faults (printf "auth.hmacSecret has %d bytes: a token secret has at least 32; `openssl rand -hex 32` makes one" (len .Values.auth.hmacSecret)) -}}
{{- end -}}
{{- if not (include "fanfare.apiRef" (list . "keys")) -}}
{{- $faults = append $faults "there is no key for the API, so that no backend could publish: set api.existingSecret or api.keys, or api.createSecret: true" -}}
{{- end -}}
{{- range .Values.api.keys -}}
{{- if or (lt (len .) 16) (contains "," .) -}}
{{- $faults = append $faults "api.keys has a key that is shorter than 16 characters or has a comma: `openssl rand -hex 32` makes one" -}}
{{- end -}}
{{- end -}}
{{- toJson ($faults | uniq) -}}
{{- end -}}

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
{{- if not (or $scaling.queueTarget $scaling.sessionsPercent $scaling.cpuPercent $scaling.memoryPercent) -}}
{{- $faults = append $faults (printf "autoscaling.mode is %s, and nothing counts: set one of queueTarget, sessionsPercent, cpuPercent and memoryPercent" $mode) -}}
{{- end -}}
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

{{- define "fanfare.checkStop" -}}
{{- $faults := list -}}
{{- $least := include "fanfare.graceLeast" . | int64 -}}
{{- if not (kindIs "invalid" .Values.terminationGracePeriodSeconds) -}}
{{- if lt (int64 .Values.terminationGracePeriodSeconds) $least -}}
{{- $faults = append $faults (printf "terminationGracePeriodSeconds is %d, and a node may need %d (5 for preStop, %d for its longest stop, 10 to spare): sessions would be cut off. Leave it out, or shorten drain.windowMs" (int64 .Values.terminationGracePeriodSeconds) $least (include "fanfare.longestStop" . | int64)) -}}
{{- end -}}
{{- end -}}
{{- $budget := .Values.podDisruptionBudget -}}
{{- if not (or (kindIs "invalid" $budget.minAvailable) (kindIs "invalid" $budget.maxUnavailable)) -}}
{{- $faults = append $faults "podDisruptionBudget has minAvailable and maxUnavailable, and Kubernetes takes exactly one: leave one of them out" -}}
{{- end -}}
{{- toJson $faults -}}
{{- end -}}

{{- define "fanfare.checkRest" -}}
{{- $faults := list -}}
{{- $digest := .Values.image.digest -}}
{{- if and $digest (not (regexMatch "^sha256:[0-9a-f]{64}$" $digest)) -}}
{{- $faults = append $faults (printf "image.digest is %q: a digest is sha256: and 64 hexadecimal digits in small letters" $digest) -}}
{{- end -}}
{{- if and .Values.gatewayApi.enabled (not .Values.gatewayApi.parentRefs) -}}
{{- $faults = append $faults "gatewayApi.enabled is true without a Gateway: name one in gatewayApi.parentRefs" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- $faults = append $faults "ingress.enabled is true without a host: set ingress.hosts" -}}
{{- end -}}
{{- toJson $faults -}}
{{- end -}}
