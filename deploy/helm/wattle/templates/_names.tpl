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

{{- define "wattle.postgres.selector" -}}
app.kubernetes.io/name: wattle
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: postgres
{{- end -}}

{{- define "wattle.agent.image" -}}
{{- $tag := printf ":%s" (.Values.image.tag | default .Chart.AppVersion) -}}
{{ .Values.image.registry }}/wattle-agent{{ ternary (printf "@%s" .Values.agent.digest) $tag (ne .Values.agent.digest "") }}
{{- end -}}

{{- define "wattle.aggregator.image" -}}
{{- $tag := printf ":%s" (.Values.image.tag | default .Chart.AppVersion) -}}
{{ .Values.image.registry }}/wattle-aggregator{{ ternary (printf "@%s" .Values.aggregator.digest) $tag (ne .Values.aggregator.digest "") }}
{{- end -}}

{{- define "wattle.postgres.image" -}}
{{- $tag := printf ":%s" (.Values.image.tag | default .Chart.AppVersion) -}}
{{ .Values.image.registry }}/wattle-postgres{{ ternary (printf "@%s" .Values.database.trial.digest) $tag (ne .Values.database.trial.digest "") }}
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

{{- /* Where agents deliver: here, or, as a member, to another cluster. */ -}}
{{- define "wattle.agent.server" -}}
{{- if .Values.aggregator.enabled -}}
{{ printf "%s:%d" (include "wattle.ingest.host" .) (int .Values.aggregator.ingestPort) }}
{{- else -}}
{{ .Values.member.server }}
{{- end -}}
{{- end -}}

{{- define "wattle.agent.authority" -}}
{{- ternary (include "wattle.tls.secret" .) .Values.member.caSecretName .Values.aggregator.enabled -}}
{{- end -}}

{{- /* The variable with the database's URL. */ -}}
{{- define "wattle.database.url" -}}
- name: WATTLE_DATABASE_URL
  {{- if eq .Values.database.kind "sqlite" }}
  value: sqlite:////var/lib/wattle/wattle.db
  {{- else }}
  valueFrom:
    secretKeyRef:
      {{- if eq .Values.database.kind "trial" }}
      name: {{ include "wattle.name" . }}-postgres
      key: url
      {{- else }}
      name: {{ .Values.database.postgres.secretName }}
      key: {{ .Values.database.postgres.secretKey }}
      {{- end }}
  {{- end }}
{{- end -}}

{{- /* The volume that trial and sqlite keep their data on. */ -}}
{{- define "wattle.database.volume" -}}
- name: database
  {{- if .Values.database.storage.persistent }}
  persistentVolumeClaim:
    claimName: {{ .Values.database.storage.existingClaim | default (printf "%s-database" (include "wattle.name" .)) }}
  {{- else }}
  emptyDir: {}
  {{- end }}
{{- end -}}

{{- /* Of a pod without any privilege. On OpenShift the namespace says which numbers of users it may have. */ -}}
{{- define "wattle.unprivilegedPod" -}}
runAsNonRoot: true
{{- if ne .Values.platform "openshift" }}
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
{{- end }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "wattle.unprivilegedContainer" -}}
privileged: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
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
