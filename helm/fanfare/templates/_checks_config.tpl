{{/*
Relations between settings of config, as docs/configuration.md says them. The node looks at all of them
again when it starts; these are those that a change of one setting breaks.
*/}}
{{- define "fanfare.checkConfig" -}}
{{- $faults := list -}}
{{- $root := . -}}
{{- /* (section, key, its default, tenths of the other that it must have at least, the other's section, key, default) */ -}}
{{- $least := list
  (list "redis" "lease_ms" 5000 25 "redis" "command_timeout_ms" 2000)
  (list "redis" "probe_fresh_ms" 5000 20 "redis" "probe_interval_ms" 1000)
  (list "session" "pong_ms" 60000 15 "session" "ping_ms" 25000)
  (list "session" "outbox_bytes_max" 1048576 10 "session" "message_bytes_max" 65536)
  (list "session" "page_bytes_max" 1048576 10 "session" "message_bytes_max" 65536) -}}
{{- range $least -}}
{{- $value := include "fanfare.setting" (list $root (index . 0) (index . 1) (index . 2)) | int64 -}}
{{- $other := include "fanfare.setting" (list $root (index . 4) (index . 5) (index . 6)) | int64 -}}
{{- $needed := div (add (mul $other (index . 3)) 9) 10 -}}
{{- if lt $value $needed -}}
{{- $faults = append $faults (printf "config.%s.%s is %d, and config.%s.%s is %d: set it to at least %d" (index . 0) (index . 1) $value (index . 4) (index . 5) $other $needed) -}}
{{- end -}}
{{- end -}}
{{- $partitions := include "fanfare.setting" (list . "redis" "partitions" 256) | int64 -}}
{{- $lease := include "fanfare.setting" (list . "redis" "lease_ms" 5000) | int64 -}}
{{- if gt $partitions (mul 4 $lease) -}}
{{- $faults = append $faults (printf "config.redis.partitions is %d, more than 4 for each millisecond of config.redis.lease_ms, %d" $partitions $lease) -}}
{{- end -}}
{{- $auth := default dict .Values.config.auth -}}
{{- if and $auth.cookie (not $auth.origins) -}}
{{- $faults = append $faults "config.auth.cookie is set without config.auth.origins: pages of everybody could connect with the cookie. Set the origins" -}}
{{- end -}}
{{- $lists := list (list "config.auth.keys" (default list $auth.keys)) -}}
{{- range $index, $issuer := $auth.issuers -}}
{{- $lists = append $lists (list (printf "config.auth.issuers[%d].keys" $index) (default list $issuer.keys)) -}}
{{- end -}}
{{- range $lists -}}
{{- $path := first . -}}
{{- range $index, $key := last . -}}
{{- $fields := ternary (list "secret_env" "secret_file") (list "public_key" "public_key_env" "public_key_file") (hasPrefix "HS" $key.algorithm) -}}
{{- $given := list -}}
{{- range list "secret_env" "secret_file" "public_key" "public_key_env" "public_key_file" -}}
{{- if get $key . -}}{{- $given = append $given . -}}{{- end -}}
{{- end -}}
{{- if not (and (eq (len $given) 1) (has (first $given) $fields)) -}}
{{- $faults = append $faults (printf "%s[%d] has algorithm %s and [%s]: it takes exactly one of %s" $path $index $key.algorithm (join ", " $given) (join ", " $fields)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $faults -}}
{{- end -}}
