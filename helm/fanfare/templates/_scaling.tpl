{{/* What the HPA and KEDA share. */}}
{{- define "fanfare.queueMetric" -}}
fanfare_queue_{{ .Values.autoscaling.queueMetric }}
{{- end -}}

{{/* So many sessions for each node: a part of what it takes at most. */}}
{{- define "fanfare.sessionsTarget" -}}
{{- div (mul (include "fanfare.connectionsMax" . | int64) (int64 .Values.autoscaling.sessionsPercent)) 100 -}}
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
