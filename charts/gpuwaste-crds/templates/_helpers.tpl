{{/* Labels of every definition. */}}
{{- define "gpuwaste-crds.labels" -}}
app.kubernetes.io/name: gpuwaste-crds
app.kubernetes.io/instance: {{ .Release.Name | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/part-of: gpuwaste
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Annotations of every definition; the policy keeps it, and all its objects, through an uninstall. */}}
{{- define "gpuwaste-crds.annotations" -}}
{{- $annotations := deepCopy .Values.annotations }}
{{- if .Values.keep }}
{{- $_ := set $annotations "helm.sh/resource-policy" "keep" }}
{{- end }}
{{- with $annotations }}
{{- toYaml . }}
{{- end }}
{{- end }}
