{{/* What the HPA and KEDA share. */}}
{{- define "fanfare.queueMetric" -}}
fanfare_queue_{{ .Values.autoscaling.queueMetric }}
{{- end -}}

{{/* So many sessions for each node: a part of what it takes at most. */}}
{{- define "fanfare.sessionsTarget" -}}
{{- max 1 (div (mul (include "fanfare.connectionsMax" . | int64) (int64 .Values.autoscaling.sessionsPercent)) 100) -}}
{{- end -}}

{{/*
So many entries the queue must be able to hold, or it can never ask for maxReplicas nodes: priority low is
refused from 70 % of the capacity on, and an autoscaler goes up only from 10 % above its target.
*/}}
{{- define "fanfare.queueLeast" -}}
{{- $asked := mul (int64 .Values.autoscaling.queueTarget) (int64 .Values.autoscaling.maxReplicas) -}}
{{- div (add (mul $asked 11) 6) 7 -}}
{{- end -}}

{{/* What the queue holds by size: queue.capacity in docs/configuration.md. */}}
{{- define "fanfare.queueCapacityOfSize" -}}
{{- get (dict "small" 1000 "medium" 50000 "large" 100000 "enterprise" 500000) .Values.size -}}
{{- end -}}

{{- define "fanfare.queueScales" -}}
{{- if and (include "fanfare.autoscaled" .) (gt (int64 .Values.autoscaling.queueTarget) 0) -}}yes{{- end -}}
{{- end -}}

{{/* The capacity that the chart sets: only where that of the size would be too little. */}}
{{- define "fanfare.queueCapacityRaised" -}}
{{- if and (include "fanfare.queueScales" .) (not (hasKey (default dict .Values.config.queue) "capacity")) -}}
{{- $least := include "fanfare.queueLeast" . | int64 -}}
{{- if gt $least (include "fanfare.queueCapacityOfSize" . | int64) -}}{{ $least }}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "fanfare.queueCapacity" -}}
{{- include "fanfare.setting" (list . "queue" "capacity" (include "fanfare.queueCapacityRaised" . | default (include "fanfare.queueCapacityOfSize" .))) -}}
{{- end -}}

{{/*
Up at once, and by as many as there are. Down by one node for each longest stop, so that the sessions of
one have come back before the next is asked to go; 1800 and 3600 are the most that Kubernetes takes.
*/}}
{{- define "fanfare.behavior" -}}
{{- if .Values.autoscaling.behavior -}}
{{- toYaml .Values.autoscaling.behavior -}}
{{- else -}}
{{- $stop := include "fanfare.longestStop" . | int64 -}}
scaleUp:
  stabilizationWindowSeconds: 0
  selectPolicy: Max
  policies:
    - type: Percent
      value: 100
      periodSeconds: 15
    - type: Pods
      value: 4
      periodSeconds: 15
scaleDown:
  stabilizationWindowSeconds: {{ min 3600 (max 300 (mul 2 $stop)) }}
  selectPolicy: Max
  policies:
    - type: Pods
      value: 1
      periodSeconds: {{ min 1800 $stop }}
{{- end -}}
{{- end -}}
