{{/* Changes whenever a pod would start with another configuration; a Secret or ConfigMap of yours is not looked into. */}}
{{- define "stoq.checksum" -}}
{{- printf "%s\n%s\n%s" .Values.config (toJson .Values.files) (toJson .Values.secrets) | sha256sum -}}
{{- end -}}

{{/* ConfigMaps and Secrets. Takes root, suffix, and annotations (of the hook's copies, which have to be there before anything else is). */}}
{{- define "stoq.inputs" -}}
{{- $root := .root -}}
{{- $suffix := .suffix -}}
{{- $annotations := .annotations -}}
{{- if not $root.Values.existingConfigMap }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "stoq.fullname" $root }}{{ $suffix }}
  labels: {{- include "stoq.labels" $root | nindent 4 }}
  {{- with $annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
data:
  stoq.toml: {{ required "a configuration is needed: --set-file config=stoq.toml, or existingConfigMap" $root.Values.config | quote }}
{{- end }}
{{- if $root.Values.files }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "stoq.fullname" $root }}-files{{ $suffix }}
  labels: {{- include "stoq.labels" $root | nindent 4 }}
  {{- with $annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
data: {{- toYaml $root.Values.files | nindent 2 }}
{{- end }}
{{- range $name, $secret := $root.Values.secrets }}
{{- if not $secret.existingSecret }}
---
apiVersion: v1
kind: Secret
metadata:
  name: {{ include "stoq.fullname" $root }}-{{ $name }}{{ $suffix }}
  labels: {{- include "stoq.labels" $root | nindent 4 }}
  {{- with $annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
type: Opaque
stringData: {{- toYaml $secret.data | nindent 2 }}
{{- end }}
{{- end }}
{{- if $root.Values.serviceAccount.create }}
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "stoq.serviceAccount" $root }}{{ $suffix }}
  labels: {{- include "stoq.labels" $root | nindent 4 }}
  {{- with merge (default dict $annotations) $root.Values.serviceAccount.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end }}
{{- end -}}
