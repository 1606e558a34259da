{{/* The parts of a pod that are more than a few lines. */}}
{{- define "fanfare.environment" -}}
- name: FANFARE_ENV
  value: {{ .Values.environment }}
- name: FANFARE_SIZE
  value: {{ .Values.size }}
# The name of the pod, and not the host's, which is cut at 63 characters.
- name: FANFARE_SERVER__NODE_ID
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: FANFARE_API__KEYS
  valueFrom:
    secretKeyRef:
      {{- include "fanfare.apiRef" (list . "keys") | nindent 6 }}
{{- with include "fanfare.tokenRef" . }}
- name: FANFARE_AUTH__HMAC_SECRET
  valueFrom:
    secretKeyRef:
      {{- . | nindent 6 }}
{{- end }}
{{- if and .Values.redis.existingSecret (not .Values.redis.url) }}
- name: FANFARE_REDIS__URL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.redis.existingSecret | quote }}
      key: {{ .Values.redis.secretKeys.url | quote }}
{{- end }}
{{- if and .Values.redis.existingSecret .Values.redis.secretKeys.shards }}
- name: FANFARE_REDIS__SHARDS
  valueFrom:
    secretKeyRef:
      name: {{ .Values.redis.existingSecret | quote }}
      key: {{ .Values.redis.secretKeys.shards | quote }}
{{- end }}
{{- if include "fanfare.hasCollector" . }}
{{- include "fanfare.telemetryEnvironment" . }}
{{- end }}
{{- with .Values.extraEnv }}
{{ tpl (toYaml .) $ }}
{{- end }}
{{- end -}}

{{- define "fanfare.telemetryEnvironment" }}
{{- with .Values.telemetry.headers.existingSecret }}
- name: FANFARE_TELEMETRY__HEADERS
  valueFrom:
    secretKeyRef:
      name: {{ . | quote }}
      key: {{ $.Values.telemetry.headers.key | quote }}
{{- end }}
- name: FANFARE_TELEMETRY__K8S_POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: FANFARE_TELEMETRY__K8S_POD_UID
  valueFrom:
    fieldRef:
      fieldPath: metadata.uid
- name: FANFARE_TELEMETRY__K8S_NAMESPACE_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: FANFARE_TELEMETRY__K8S_NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
{{- end -}}

{{- define "fanfare.mounts" -}}
- name: config
  mountPath: /etc/fanfare
  readOnly: true
{{- if include "fanfare.hasPasswordFile" . }}
- name: redis-password
  mountPath: /run/secrets/fanfare/redis
  readOnly: true
{{- end }}
{{- if .Values.redis.tls.existingSecret }}
- name: redis-tls
  mountPath: /run/secrets/fanfare/redis-tls
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "fanfare.volumes" -}}
- name: config
  configMap:
    name: {{ include "fanfare.fullname" . | quote }}
{{- if include "fanfare.hasPasswordFile" . }}
- name: redis-password
  secret:
    secretName: {{ .Values.redis.existingSecret | quote }}
    defaultMode: 0440
    items:
      - key: {{ .Values.redis.secretKeys.password | quote }}
        path: password
{{- end }}
{{- with .Values.redis.tls }}
{{- if .existingSecret }}
- name: redis-tls
  secret:
    secretName: {{ .existingSecret | quote }}
    defaultMode: 0440
    items:
      {{- if .caKey }}
      - key: {{ .caKey | quote }}
        path: ca.crt
      {{- end }}
      {{- if .certificateKey }}
      - key: {{ .certificateKey | quote }}
        path: tls.crt
      - key: {{ .privateKeyKey | quote }}
        path: tls.key
      {{- end }}
{{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "fanfare.probes" -}}
# A node is up within a second; a minute is for machines that are busy.
startupProbe:
  httpGet:
    path: /health/live
    port: metrics
  periodSeconds: 1
  timeoutSeconds: 3
  failureThreshold: 60
livenessProbe:
  httpGet:
    path: /health/live
    port: metrics
  periodSeconds: 10
  timeoutSeconds: 3
  failureThreshold: 3
readinessProbe:
  httpGet:
    path: /health/ready
    port: metrics
  periodSeconds: 3
  timeoutSeconds: 3
  failureThreshold: 2
{{- end -}}

{{- define "fanfare.topologySpread" -}}
{{- $keys := list
  (list "topology.kubernetes.io/zone" .Values.topologySpread.zone)
  (list "kubernetes.io/hostname" .Values.topologySpread.host) -}}
{{- range $keys }}
{{- if ne (index . 1) "none" }}
- topologyKey: {{ index . 0 }}
  maxSkew: 1
  whenUnsatisfiable: {{ index . 1 }}
  labelSelector:
    matchLabels:
      {{- include "fanfare.selectorLabels" $ | nindent 6 }}
  # Pods of an update are spread among themselves.
  matchLabelKeys: [pod-template-hash]
{{- end }}
{{- end }}
{{- end -}}

{{/* Changes where a change of the values must start the nodes anew. A Secret of others cannot be seen. */}}
{{- define "fanfare.checksum" -}}
{{- $given := list (include "fanfare.config" .) .Values.auth.hmacSecret .Values.api.keys -}}
{{- toJson $given | sha256sum -}}
{{- end -}}
