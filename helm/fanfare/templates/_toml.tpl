{{/*
A map as TOML: first the plain values, then a table for each map and each map of a list. Helm has toToml,
which writes whole numbers of values as 1000.0; the gateway refuses that.
*/}}
{{- define "fanfare.toml" -}}
{{- $path := index . 0 -}}
{{- $table := index . 1 -}}
{{- range $key := keys $table | sortAlpha -}}
{{- $value := get $table $key -}}
{{- if not (or (kindIs "map" $value) (include "fanfare.isTables" (list $value)) (kindIs "invalid" $value)) }}
{{ include "fanfare.tomlKey" $key }} = {{ include "fanfare.tomlValue" (list $value) }}
{{- end -}}
{{- end -}}
{{- range $key := keys $table | sortAlpha -}}
{{- $value := get $table $key -}}
{{- $name := include "fanfare.tomlKey" $key -}}
{{- if $path -}}{{- $name = printf "%s.%s" $path $name -}}{{- end -}}
{{- if kindIs "map" $value }}

[{{ $name }}]
{{- include "fanfare.toml" (list $name $value) -}}
{{- else if include "fanfare.isTables" (list $value) -}}
{{- range $value }}

[[{{ $name }}]]
{{- include "fanfare.toml" (list $name .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "fanfare.isTables" -}}
{{- $value := index . 0 -}}
{{- if kindIs "slice" $value -}}
{{- if $value -}}
{{- if kindIs "map" (first $value) -}}yes{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "fanfare.tomlKey" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . -}}{{ . }}{{- else -}}{{ toJson . }}{{- end -}}
{{- end -}}

{{- define "fanfare.tomlValue" -}}
{{- $value := index . 0 -}}
{{- if kindIs "slice" $value -}}
[{{- range $index, $item := $value -}}{{- if $index -}}, {{ end -}}{{ include "fanfare.tomlValue" (list $item) }}{{- end -}}]
{{- else if kindIs "float64" $value -}}
{{- if eq (floor $value) $value -}}{{ int64 $value }}{{- else -}}{{ $value }}{{- end -}}
{{- else if kindIs "string" $value -}}
{{- toRawJson $value -}}
{{- else -}}
{{- $value -}}
{{- end -}}
{{- end -}}
