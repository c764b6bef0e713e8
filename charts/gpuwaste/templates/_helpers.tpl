{{/* First part of the names of all objects. */}}
{{- define "gpuwaste.fullname" -}}
{{- $release := .Release.Name }}
{{- $name := ternary $release (printf "%s-gpuwaste" $release) (contains "gpuwaste" $release) }}
{{- .Values.fullnameOverride | default $name | trunc 50 | trimSuffix "-" }}
{{- end }}

{{/* Labels that never change: (dict "root" $ "component" "agent"). */}}
{{- define "gpuwaste.selector" -}}
app.kubernetes.io/name: gpuwaste
app.kubernetes.io/instance: {{ .root.Release.Name | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* All labels of an object, of the same dict. */}}
{{- define "gpuwaste.labels" -}}
{{ include "gpuwaste.selector" . }}
app.kubernetes.io/part-of: gpuwaste
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* An image: (dict "root" $ "image" .Values.agent.image). */}}
{{- define "gpuwaste.image" -}}
{{- $registry := .root.Values.image.registry }}
{{- $name := ternary (printf "%s/%s" $registry .image.repository) .image.repository (ne $registry "") }}
{{- if .image.digest }}
{{- printf "%s@%s" $name .image.digest }}
{{- else }}
{{- printf "%s:%s" $name (.image.tag | default .root.Chart.AppVersion) }}
{{- end }}
{{- end }}

{{- define "gpuwaste.pullSecrets" -}}
{{- range .Values.image.pullSecrets }}
- name: {{ . }}
{{- end }}
{{- end }}

{{- define "gpuwaste.agentSecret" -}}
{{- .Values.tls.agentSecret | default (printf "%s-agent-tls" (include "gpuwaste.fullname" .)) }}
{{- end }}

{{- define "gpuwaste.operatorSecret" -}}
{{- .Values.tls.operatorSecret | default (printf "%s-operator-tls" (include "gpuwaste.fullname" .)) }}
{{- end }}

{{/* The operator's settings file: the user's settings and what the chart knows; nobody sets both. */}}
{{- define "gpuwaste.settings" -}}
{{- $settings := deepCopy .Values.operator.settings }}
{{- range list "store" "clusterName" "priceList" "livenessPort" "metricsPort" "receivePort" }}
{{- if hasKey $settings . }}
{{- fail (printf "operator.settings.%s is set by the chart: see clusterName, operator.store and operator.priceList" .) }}
{{- end }}
{{- end }}
{{- $agents := get $settings "agents" | default dict }}
{{- range list "namespace" "labelSelector" "port" "tls" }}
{{- if hasKey $agents . }}
{{- fail (printf "operator.settings.agents.%s is set by the chart, whose agents it describes" .) }}
{{- end }}
{{- end }}
{{- $selector := list }}
{{- range $key, $value := include "gpuwaste.selector" (dict "root" . "component" "agent") | fromYaml }}
{{- $selector = append $selector (printf "%s=%s" $key $value) }}
{{- end }}
{{- $tls := dict "ca" "/etc/gpuwaste/tls/ca.crt" "certificate" "/etc/gpuwaste/tls/tls.crt" "key" "/etc/gpuwaste/tls/tls.key" }}
{{- $found := dict "namespace" .Release.Namespace "labelSelector" (join "," $selector) "port" 9440 "tls" $tls }}
{{- $_ := set $settings "agents" (merge $found $agents) }}
{{- $_ := set $settings "store" (.Values.operator.store.url | default "/var/lib/gpuwaste") }}
{{- $_ := set $settings "livenessPort" 8080 }}
{{- $_ := set $settings "metricsPort" 9090 }}
{{- $_ := set $settings "receivePort" 9443 }}
{{- with .Values.clusterName }}
{{- $_ := set $settings "clusterName" . }}
{{- end }}
{{- if .Values.operator.priceList }}
{{- $_ := set $settings "priceList" "/etc/gpuwaste/config/prices.yaml" }}
{{- end }}
{{- toYaml $settings }}
{{- end }}
