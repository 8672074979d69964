{{/* What a role reaches, as JSON. */}}
{{- define "stoq.reaches" -}}
{{- $groups := dict
  "provider" (list "lanes" "ledger" "store" "intake" "traces")
  "worker" (list "lanes" "ledger" "store" "fetch" "traces")
  "connector" (list "lanes" "ledger" "store" "sinks" "traces")
  "setup" (list "lanes" "sinks")
  "gc" (list "lanes" "ledger" "store")
  "status" (list "lanes" "ledger" "store") -}}
{{- toJson (index $groups .) -}}
{{- end -}}

{{/* The policy of one role. Takes root, role, annotations. */}}
{{- define "stoq.policy" }}
{{- $policy := .root.Values.networkPolicy }}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "stoq.fullname" .root }}-{{ .role }}
  labels: {{- include "stoq.labels" .root | nindent 4 }}
  {{- with .annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  podSelector:
    matchLabels: {{- include "stoq.selector" .root | nindent 6 }}
      app.kubernetes.io/component: {{ .role }}
  policyTypes: [Ingress, Egress]
  {{- if and (has .role (list "provider" "worker" "connector")) $policy.scrapeFrom }}
  ingress:
    - from: {{- toYaml $policy.scrapeFrom | nindent 8 }}
      ports: [{port: {{ .root.Values.http.port }}}]
  {{- end }}
  egress:
    {{- with $policy.dns }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- range $group := include "stoq.reaches" .role | fromJsonArray }}
    {{- with index $policy.egress $group }}
    # {{ $group }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- end }}
{{- end -}}
