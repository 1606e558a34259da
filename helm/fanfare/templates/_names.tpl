{{/*
Names and labels. A name of a Deployment has at most 46 characters: the pod's, 17 more, is the node's
name, and a host name beyond 63 would be cut where pods differ.
*/}}
{{- define "fanfare.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "fanfare.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 46 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 46 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 46 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "fanfare.selectorLabels" -}}
app.kubernetes.io/name: {{ include "fanfare.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: gateway
{{- end -}}

{{- define "fanfare.commonLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: fanfare
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "fanfare.labels" -}}
{{ include "fanfare.selectorLabels" . }}
{{ include "fanfare.commonLabels" . }}
{{- end -}}

{{- define "fanfare.valkeySelectorLabels" -}}
app.kubernetes.io/name: {{ include "fanfare.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: valkey
{{- end -}}

{{- define "fanfare.testSelectorLabels" -}}
app.kubernetes.io/name: {{ include "fanfare.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: roundtrip
{{- end -}}

{{- define "fanfare.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "fanfare.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The job under which Prometheus has the nodes. Alerts look for jobs with fanfare in their names. */}}
{{- define "fanfare.job" -}}
{{- $fullname := include "fanfare.fullname" . -}}
{{- if contains "fanfare" $fullname -}}{{ $fullname }}{{- else -}}fanfare-{{ $fullname }}{{- end -}}
{{- end -}}

{{- define "fanfare.image" -}}
{{- $image := .Values.image -}}
{{- $registry := default $image.registry .Values.global.imageRegistry -}}
{{- $name := $image.repository -}}
{{- if $registry -}}{{- $name = printf "%s/%s" $registry $image.repository -}}{{- end -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $name $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default .Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "fanfare.valkeyImage" -}}
{{- $image := .Values.devValkey.image -}}
{{- with default $image.registry .Values.global.imageRegistry -}}{{ . }}/{{- end -}}
{{ $image.repository }}:{{ $image.tag }}
{{- end -}}

{{- define "fanfare.pullSecrets" -}}
{{- $all := concat .Values.global.imagePullSecrets .Values.image.pullSecrets -}}
{{- with $all }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* What Pod Security "restricted" asks of a container, and a root file system that nobody writes. */}}
{{- define "fanfare.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
privileged: false
readOnlyRootFilesystem: true
{{- end -}}

{{- define "fanfare.podSecurity" -}}
fsGroup: {{ . }}
runAsGroup: {{ . }}
runAsNonRoot: true
runAsUser: {{ . }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}
