{{/* Relations between values: Redis, and to where nodes are let. */}}
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
{{- if and (contains "-sentinel://" $redis.url) (not (regexMatch "[?&]master=[^&]+" $redis.url)) -}}
{{- $faults = append $faults "redis.url names sentinels and no master: add ?master=NAME" -}}
{{- end -}}
{{- if and $redis.user (not (include "fanfare.hasPasswordFile" .)) -}}
{{- $faults = append $faults "redis.user is set without a password: set redis.url and redis.existingSecret, whose key redis.secretKeys.password has it" -}}
{{- end -}}
{{- if and $redis.secretKeys.shards (not $redis.existingSecret) -}}
{{- $faults = append $faults "redis.secretKeys.shards is set without a Secret that has it: set redis.existingSecret" -}}
{{- end -}}
{{- if and .Values.devValkey.enabled (or $redis.url $redis.existingSecret) -}}
{{- $faults = append $faults "devValkey.enabled is true, and redis.url or redis.existingSecret is set: nodes use one of them; leave the other out" -}}
{{- end -}}
{{- if and .Values.devValkey.enabled (eq .Values.environment "production") -}}
{{- $faults = append $faults "devValkey.enabled is true in production: it has no password and loses everything when it ends. Set redis.url or redis.existingSecret, or environment: staging" -}}
{{- end -}}
{{- toJson (concat $faults (include "fanfare.checkRedisTls" . | fromJsonArray)) -}}
{{- end -}}

{{- define "fanfare.checkRedisTls" -}}
{{- $faults := list -}}
{{- $tls := .Values.redis.tls -}}
{{- if ne (empty $tls.certificateKey) (empty $tls.privateKeyKey) -}}
{{- $faults = append $faults "redis.tls has one of certificateKey and privateKeyKey: a certificate is shown with its key, so set both or none" -}}
{{- end -}}
{{- if and $tls.certificateKey (not $tls.existingSecret) -}}
{{- $faults = append $faults "redis.tls.certificateKey is set without a Secret that has it: set redis.tls.existingSecret" -}}
{{- end -}}
{{- /* What the Secret has is not seen here. */ -}}
{{- if and .Values.redis.url (or $tls.existingSecret $tls.serverName) (not (regexMatch "^(rediss|valkeys)(-[a-z]+)?://" .Values.redis.url)) -}}
{{- $faults = append $faults "redis.tls is set, and redis.url asks for no TLS: let it begin with rediss in place of redis, or leave redis.tls out" -}}
{{- end -}}
{{- toJson $faults -}}
{{- end -}}

{{- define "fanfare.checkEgress" -}}
{{- $faults := list -}}
{{- $egress := .Values.networkPolicy.egress -}}
{{- if and .Values.networkPolicy.enabled $egress.enabled (not $egress.redisPorts) -}}
{{- if and .Values.redis.existingSecret (or (not .Values.redis.url) .Values.redis.secretKeys.shards) -}}
{{- $faults = append $faults "networkPolicy.egress.enabled is true, and an address of Redis is in a Secret, so that its port cannot be seen: set networkPolicy.egress.redisPorts, with the ports of sentinels" -}}
{{- end -}}
{{- end -}}
{{- if .Values.networkPolicy.enabled -}}
{{- if and $egress.enabled $egress.redisPorts .Values.redis.url (not .Values.devValkey.enabled) -}}
{{- $open := include "fanfare.numbers" $egress.redisPorts | fromJsonArray -}}
{{- range regexReplaceAll "^[a-z-]+://([^/?]*).*$" .Values.redis.url "${1}" | splitList "," -}}
{{- $port := regexFind "[0-9]+$" (regexFind ":[0-9]+$" .) -}}
{{- if and $port (not (has (float64 $port) $open)) -}}
{{- $faults = append $faults (printf "redis.url has the port %s, which networkPolicy.egress.redisPorts leaves out, so that nodes would not reach it: add it, or leave redisPorts out" $port) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $egress.enabled $egress.collectorPorts -}}
{{- $open := include "fanfare.numbers" $egress.collectorPorts | fromJsonArray -}}
{{- range include "fanfare.collectors" . | fromJsonArray -}}
{{- $host := regexReplaceAll "^[a-z]+://([^/?]*).*$" . "${1}" -}}
{{- $port := regexFind "[0-9]+$" (regexFind ":[0-9]+$" $host) | default (hasPrefix "https:" . | ternary "443" "80") -}}
{{- if not (has (float64 $port) $open) -}}
{{- $faults = append $faults (printf "%s has the port %s, which networkPolicy.egress.collectorPorts leaves out, so that nodes would not reach it: add it, or leave collectorPorts out" . $port) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $faults -}}
{{- end -}}
