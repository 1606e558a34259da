{{/*
What no schema can say: relations between values. Each fault says what is wrong and what to do, and all
are told at once.
*/}}
{{- define "fanfare.checks" -}}
{{- $faults := list -}}
{{- range list "Names" "Redis" "Egress" "Secrets" "Variables" "Scaling" "Handover" "Stop" "Budget" "Service" "Routes" "Config" "Rest" -}}
{{- $faults = concat $faults (include (printf "fanfare.check%s" .) $ | fromJsonArray) -}}
{{- end -}}
{{- if $faults -}}
{{- fail (printf "\n\n%s\n" (join "\n" ($faults | uniq))) -}}
{{- end -}}
{{- end -}}

{{- define "fanfare.checkNames" -}}
{{- $faults := list -}}
{{- $name := include "fanfare.fullname" . -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) -}}
{{- $faults = append $faults (printf "the name of the objects is %q: Services must begin with a small letter, and have small letters, digits and - alone. Set fullnameOverride, or take another name for the release" $name) -}}
{{- end -}}
{{- $own := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" "app.kubernetes.io/part-of" "helm.sh/chart" -}}
{{- $common := .Values.commonLabels -}}
{{- $all := dict "commonLabels" $common "podLabels" .Values.podLabels "service.labels" .Values.service.labels "apiService.labels" .Values.apiService.labels "gatewayApi.labels" .Values.gatewayApi.labels "metrics.serviceMonitor.labels" .Values.metrics.serviceMonitor.labels "metrics.prometheusRule.labels" .Values.metrics.prometheusRule.labels "metrics.dashboards.labels" .Values.metrics.dashboards.labels -}}
{{- range $where, $labels := $all -}}
{{- range $key, $_ := $labels -}}
{{- if has $key $own -}}
{{- $faults = append $faults (printf "%s has %s, which the chart sets itself and selects pods by: leave it out" $where $key) -}}
{{- else if and (ne $where "commonLabels") (hasKey $common $key) -}}
{{- $faults = append $faults (printf "%s has %s, which commonLabels has too: leave it out in one of them" $where $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $faults -}}
{{- end -}}

{{- define "fanfare.checkSecrets" -}}
{{- $faults := list -}}
{{- $auth := default dict .Values.config.auth -}}
{{- if not (or (include "fanfare.tokenRef" .) $auth.keys $auth.issuers $auth.hmac_secret_file $auth.anonymous) -}}
{{- $faults = append $faults "there is no token key, so that nobody could connect: set auth.existingSecret, auth.hmacSecret, config.auth.keys or config.auth.issuers, or auth.createSecret: true" -}}
{{- end -}}
{{- if and .Values.auth.hmacSecret (lt (len .Values.auth.hmacSecret) 32) -}}
{{- $faults = append $faults (printf "auth.hmacSecret has %d bytes: a token secret has at least 32; `openssl rand -hex 32` makes one" (len .Values.auth.hmacSecret)) -}}
{{- end -}}
{{- if and .Values.auth.hmacSecret .Values.auth.existingSecret -}}
{{- $faults = append $faults "auth.hmacSecret and auth.existingSecret are set: the first would do nothing; leave one of them out" -}}
{{- end -}}
{{- if not (include "fanfare.apiRef" (list . "keys")) -}}
{{- $faults = append $faults "there is no key for the API, so that no backend could publish: set api.existingSecret or api.keys, or api.createSecret: true" -}}
{{- end -}}
{{- range .Values.api.keys -}}
{{- if not (regexMatch "^[!-+--~]{16,}$" .) -}}
{{- $faults = append $faults "api.keys has a key that is shorter than 16 characters, or has something else than printable ASCII without spaces and commas: `openssl rand -hex 32` makes one" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.api.keys .Values.api.existingSecret -}}
{{- $faults = append $faults "api.keys and api.existingSecret are set: the first would do nothing; leave one of them out" -}}
{{- end -}}
{{- if and .Values.api.existingSecret (eq .Values.api.secretKeys.key .Values.api.secretKeys.keys) -}}
{{- $faults = append $faults (printf "api.secretKeys.key and api.secretKeys.keys are both %q: helm test and KEDA send what stands under the first as one key, which fails as soon as there are two. Put one key alone under a name of its own" .Values.api.secretKeys.key) -}}
{{- end -}}
{{- if and .Values.telemetry.headers.existingSecret (not (include "fanfare.hasCollector" .)) -}}
{{- $faults = append $faults "telemetry.headers.existingSecret is set, and there is no collector to send them to: set telemetry.endpoint, or leave it out" -}}
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
{{- toJson $faults -}}
{{- end -}}

{{- define "fanfare.checkBudget" -}}
{{- $faults := list -}}
{{- $budget := .Values.podDisruptionBudget -}}
{{- $hasLeast := not (kindIs "invalid" $budget.minAvailable) -}}
{{- $hasMost := not (kindIs "invalid" $budget.maxUnavailable) -}}
{{- if and $hasLeast $hasMost -}}
{{- $faults = append $faults "podDisruptionBudget has minAvailable and maxUnavailable, and Kubernetes takes exactly one: leave one of them out" -}}
{{- end -}}
{{- if and $budget.enabled (include "fanfare.severalNodes" .) -}}
{{- $nodes := include "fanfare.fewestNodes" . | int64 -}}
{{- if $hasMost -}}
{{- if has (toString $budget.maxUnavailable) (list "0" "0%") -}}
{{- $faults = append $faults "podDisruptionBudget.maxUnavailable is 0: no machine could ever be maintained. Set at least 1" -}}
{{- end -}}
{{- end -}}
{{- if $hasLeast -}}
{{- $least := int64 0 -}}
{{- if kindIs "string" $budget.minAvailable -}}
{{- /* Kubernetes rounds up. */ -}}
{{- $least = div (add (mul (trimSuffix "%" $budget.minAvailable | int64) $nodes) 99) 100 -}}
{{- else -}}
{{- $least = int64 $budget.minAvailable -}}
{{- end -}}
{{- if ge $least $nodes -}}
{{- $faults = append $faults (printf "podDisruptionBudget.minAvailable is %v, and there may be only %d nodes, of which it keeps %d: no machine could be maintained. Set less, or maxUnavailable: 1" $budget.minAvailable $nodes $least) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $faults -}}
{{- end -}}

{{- define "fanfare.fewestNodes" -}}
{{- include "fanfare.autoscaled" . | empty | ternary .Values.replicaCount .Values.autoscaling.minReplicas | int64 -}}
{{- end -}}

{{- define "fanfare.checkRest" -}}
{{- $faults := list -}}
{{- $digest := .Values.image.digest -}}
{{- if and $digest (not (regexMatch "^sha256:[0-9a-f]{64}$" $digest)) -}}
{{- $faults = append $faults (printf "image.digest is %q: a digest is sha256: and 64 hexadecimal digits in small letters" $digest) -}}
{{- end -}}
{{- $monitor := .Values.metrics.serviceMonitor -}}
{{- if gt (include "fanfare.seconds" $monitor.scrapeTimeout | int64) (include "fanfare.seconds" $monitor.interval | int64) -}}
{{- $faults = append $faults (printf "metrics.serviceMonitor.scrapeTimeout is %s, longer than interval, %s, and Prometheus takes no such thing: shorten it" $monitor.scrapeTimeout $monitor.interval) -}}
{{- end -}}
{{- toJson $faults -}}
{{- end -}}

{{/* 15s or 2m, in seconds. */}}
{{- define "fanfare.seconds" -}}
{{- $number := trimAll "sm" . | int64 -}}
{{- hasSuffix "m" . | ternary (mul 60 $number) $number -}}
{{- end -}}
