{{- define "stoq.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 32 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 32 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 32 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "stoq.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "stoq.labels" -}}
{{ include "stoq.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "stoq.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "stoq.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "stoq.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{/* What a pool is in the end: all pods', the role's, its own. Takes root, role, pool. */}}
{{- define "stoq.pool" -}}
{{- $all := deepCopy .root.Values.defaults.all -}}
{{- $role := deepCopy (index .root.Values.defaults .role) -}}
{{- toJson (mustMergeOverwrite $all $role (deepCopy .pool)) -}}
{{- end -}}

{{/* All pools that are on, as JSON: [{role, name, fullname, pool}]. */}}
{{- define "stoq.pools" -}}
{{- $root := . -}}
{{- $found := list -}}
{{- range $role := list "provider" "worker" "connector" -}}
{{- range $name, $given := index $root.Values (printf "%ss" $role) -}}
{{- $pool := include "stoq.pool" (dict "root" $root "role" $role "pool" (default dict $given)) | fromJson -}}
{{- if $pool.enabled -}}
{{- $full := printf "%s-%s-%s" (include "stoq.fullname" $root) $role $name | trunc 63 | trimSuffix "-" -}}
{{- $found = append $found (dict "role" $role "name" $name "fullname" $full "pool" $pool) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{/* The names of Secrets that a role sees. Takes root, role, suffix (of those that the chart makes). */}}
{{- define "stoq.volumes" -}}
- name: stoq-config
  configMap:
    name: {{ if .root.Values.existingConfigMap }}{{ .root.Values.existingConfigMap }}{{ else }}{{ include "stoq.fullname" .root }}{{ .suffix }}{{ end }}
{{- if .root.Values.files }}
- name: stoq-files
  configMap:
    name: {{ include "stoq.fullname" .root }}-files{{ .suffix }}
{{- end }}
{{- range $name, $secret := .root.Values.secrets }}
{{- if or (not $secret.roles) (has $.role $secret.roles) }}
- name: stoq-secret-{{ $name }}
  secret:
    secretName: {{ if $secret.existingSecret }}{{ $secret.existingSecret }}{{ else }}{{ include "stoq.fullname" $.root }}-{{ $name }}{{ $.suffix }}{{ end }}
    defaultMode: 0440
{{- end }}
{{- end }}
{{- end -}}

{{- define "stoq.mounts" -}}
- name: stoq-config
  mountPath: /etc/stoq/stoq.toml
  subPath: stoq.toml
  readOnly: true
{{- if .root.Values.files }}
- name: stoq-files
  mountPath: /etc/stoq/files
  readOnly: true
{{- end }}
{{- range $name, $secret := .root.Values.secrets }}
{{- if or (not $secret.roles) (has $.role $secret.roles) }}
- name: stoq-secret-{{ $name }}
  mountPath: /run/secrets/{{ $name }}
  readOnly: true
{{- end }}
{{- end }}
- name: stoq-data
  mountPath: /var/lib/stoq
{{- end -}}

{{/* A pod that runs one command and ends. Takes root, role, args, suffix. */}}
{{- define "stoq.once" -}}
{{- $pool := include "stoq.pool" (dict "root" .root "role" "job" "pool" dict) | fromJson -}}
restartPolicy: Never
serviceAccountName: {{ include "stoq.serviceAccount" .root }}{{ if .root.Values.serviceAccount.create }}{{ .suffix }}{{ end }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext: {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- with $pool.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pool.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: stoq
    image: {{ include "stoq.image" .root }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    args: {{- toYaml .args | nindent 6 }}
    {{- with $pool.env }}
    env: {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with $pool.envFrom }}
    envFrom: {{- toYaml . | nindent 6 }}
    {{- end }}
    resources: {{- toYaml $pool.resources | nindent 6 }}
    securityContext: {{- toYaml .root.Values.securityContext | nindent 6 }}
    volumeMounts: {{- include "stoq.mounts" . | nindent 6 }}
      {{- with $pool.extraVolumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
volumes: {{- include "stoq.volumes" . | nindent 2 }}
  - name: stoq-data
    emptyDir: {sizeLimit: 1Gi}
  {{- with $pool.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
