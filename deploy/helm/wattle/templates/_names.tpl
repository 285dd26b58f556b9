{{- define "wattle.name" -}}
{{- $own := ternary .Release.Name (printf "%s-wattle" .Release.Name) (contains "wattle" .Release.Name) -}}
{{- .Values.fullnameOverride | default $own | trunc 45 | trimSuffix "-" -}}
{{- end -}}

{{- define "wattle.labels" -}}
app.kubernetes.io/name: wattle
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- /* What selects pods: no version in it, a Deployment's selector cannot change. */ -}}
{{- define "wattle.agent.selector" -}}
app.kubernetes.io/name: wattle
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: agent
{{- end -}}

{{- define "wattle.aggregator.selector" -}}
app.kubernetes.io/name: wattle
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: aggregator
{{- end -}}

{{- define "wattle.agent.image" -}}
{{- $tag := printf ":%s" (.Values.image.tag | default .Chart.AppVersion) -}}
{{ .Values.image.registry }}/wattle-agent{{ ternary (printf "@%s" .Values.agent.digest) $tag (ne .Values.agent.digest "") }}
{{- end -}}

{{- define "wattle.aggregator.image" -}}
{{- $tag := printf ":%s" (.Values.image.tag | default .Chart.AppVersion) -}}
{{ .Values.image.registry }}/wattle-aggregator{{ ternary (printf "@%s" .Values.aggregator.digest) $tag (ne .Values.aggregator.digest "") }}
{{- end -}}

{{- define "wattle.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "wattle.kubeVersion" -}}
{{ .Values.kubeVersion | default .Capabilities.KubeVersion.Version }}
{{- end -}}

{{- define "wattle.ingest.host" -}}
{{ include "wattle.name" . }}-ingest.{{ .Release.Namespace }}.svc
{{- end -}}

{{- define "wattle.query.host" -}}
{{ include "wattle.name" . }}-query.{{ .Release.Namespace }}.svc
{{- end -}}

{{- define "wattle.tls.secret" -}}
{{- ternary .Values.tls.secretName (printf "%s-ingest-tls" (include "wattle.name" .)) (eq .Values.tls.mode "secret") -}}
{{- end -}}

{{- /* A map of settings as environment variables: flow_entries becomes WATTLE_FLOW_ENTRIES. */ -}}
{{- define "wattle.settings" -}}
{{- range $name, $value := . }}
- name: WATTLE_{{ upper $name }}
  {{- if kindIs "slice" $value }}
  value: {{ join "," $value | quote }}
  {{- else if and (kindIs "float64" $value) (eq (floor $value) $value) }}
  value: {{ $value | int64 | quote }} {{- /* not 8.388608e+06 */}}
  {{- else }}
  value: {{ $value | toString | quote }}
  {{- end }}
{{- end }}
{{- end -}}
