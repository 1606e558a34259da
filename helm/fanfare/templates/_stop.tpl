{{/*
The longest stop of a node, in seconds: from SIGTERM to its exit with connections_max sessions that never
answer, all deadlines of its steps added (src/node/stop_time.rs). In milliseconds:

  drain.delay_ms
  + the larger of drain.window_ms / 2 and connections_max / drain.sessions_per_s   sessions are told
  + drain.window_ms / 4                                                            the last one may stay
  + 2 × (drain.commands_timeout_ms + session.close_timeout_ms)                     waves, then workers
  + 5 × 2000                             members, occupancy, queue, partitions, the node's own lease
  + the larger of 10000 and COMMANDS_END                                           last answers of the API
  + 2 × COMMANDS_END                     with Redis: what is queued is sent, connections end
  + 3000 + 2000 + 1000                              the collector, tasks that are left, the log

COMMANDS_END = 2 × redis.command_timeout_ms + 1000. `fanfare config show` prints the node's own figure
as stop.longest_s.
*/}}
{{- define "fanfare.longestStopMs" -}}
{{- $drain := .Values.drain -}}
{{- $window := int64 $drain.windowMs -}}
{{- $close := include "fanfare.setting" (list . "session" "close_timeout_ms" 5000) | int64 -}}
{{- $command := include "fanfare.setting" (list . "redis" "command_timeout_ms" 2000) | int64 -}}
{{- $paced := 0 -}}
{{- if gt (int64 $drain.sessionsPerSecond) 0 -}}
{{- $paced = div (mul (include "fanfare.connectionsMax" . | int64) 1000) (int64 $drain.sessionsPerSecond) -}}
{{- end -}}
{{- $commandsEnd := add (mul 2 $command) 1000 -}}
{{- $told := add (int64 $drain.delayMs) (max (div $window 2) $paced) (div $window 4) -}}
{{- $closed := mul 2 (add (int64 $drain.commandsTimeoutMs) $close) -}}
{{- $back := add 10000 (max 10000 $commandsEnd) 6000 -}}
{{- if include "fanfare.hasRedis" . -}}
{{- $back = add $back (mul 2 $commandsEnd) -}}
{{- end -}}
{{- add $told $closed $back -}}
{{- end -}}

{{- define "fanfare.longestStop" -}}
{{- $ms := include "fanfare.longestStopMs" . | int64 -}}
{{- div (add $ms 999) 1000 -}}
{{- end -}}

{{/* The sleep of preStop: while it lasts, balancers learn that no new sessions are to come here. */}}
{{- define "fanfare.preStopSeconds" -}}5{{- end -}}

{{- define "fanfare.graceLeast" -}}
{{- add (include "fanfare.preStopSeconds" . | int64) (include "fanfare.longestStop" . | int64) 10 -}}
{{- end -}}

{{- define "fanfare.grace" -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds -}}
{{- include "fanfare.graceLeast" . -}}
{{- else -}}
{{- int64 .Values.terminationGracePeriodSeconds -}}
{{- end -}}
{{- end -}}
