{{/* Subscriptions whose backlog a pool works off, as JSON: [{lane, subscription}]. Takes what stoq.pools says, and tenants. */}}
{{- define "stoq.backlogs" -}}
{{- $found := list -}}
{{- if eq .role "worker" -}}
{{- $tenants := .pool.tenants | default (prepend .tenants "default") -}}
{{- range $tenant := $tenants -}}
{{- range $lane := list "roots" "children" -}}
{{- $found = append $found (dict "lane" (eq $tenant "default" | ternary $lane (printf "%s.%s" $lane $tenant)) "subscription" "workers") -}}
{{- end -}}
{{- end -}}
{{- else if eq .role "connector" -}}
{{- range $plugin := .pool.plugins -}}
{{- $found = append $found (dict "lane" "results" "subscription" $plugin) -}}
{{- end -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{/* KEDA's triggers of a pool. Takes root and what stoq.pools says of the pool. */}}
{{- define "stoq.triggers" -}}
{{- $scaling := .root.Values.autoscaling -}}
{{- $messages := .one.pool.autoscaling.messages -}}
{{- $auth := include "stoq.fullname" .root -}}
{{- range $backlog := include "stoq.backlogs" (set .one "tenants" $scaling.tenants) | fromJsonArray }}
{{- $lane := printf "%s.%s" $scaling.prefix $backlog.lane }}
{{- $queue := printf "%s.%s" $lane $backlog.subscription }}
{{- if eq $scaling.broker "rabbitmq" }}
- type: rabbitmq
  name: {{ $backlog.lane | replace "." "-" }}-{{ $backlog.subscription }}
  metadata:
    protocol: {{ $scaling.rabbitmq.protocol }}
    queueName: {{ $queue | quote }}
    mode: QueueLength
    value: {{ $messages | quote }}
  authenticationRef: {name: {{ $auth }}}
{{- else if eq $scaling.broker "kafka" }}
- type: kafka
  name: {{ $backlog.lane | replace "." "-" }}-{{ $backlog.subscription }}
  metadata:
    bootstrapServers: {{ join "," $scaling.kafka.servers | quote }}
    topic: {{ $lane | quote }}
    consumerGroup: {{ $queue | quote }}
    lagThreshold: {{ $messages | quote }}
    # A group without an offset yet has everything before it.
    offsetResetPolicy: earliest
    sasl: {{ $scaling.kafka.sasl }}
    tls: {{ $scaling.kafka.tls }}
  {{- if $scaling.kafka.secret }}
  authenticationRef: {name: {{ $auth }}}
  {{- end }}
{{- else if eq $scaling.pubsub.trigger "gcp-pubsub" }}
- type: gcp-pubsub
  name: {{ $backlog.lane | replace "." "-" }}-{{ $backlog.subscription }}
  metadata:
    subscriptionName: {{ printf "projects/%s/subscriptions/%s" $scaling.pubsub.project $queue | quote }}
    mode: SubscriptionSize
    value: {{ $messages | quote }}
  authenticationRef: {name: {{ $auth }}}
{{- else }}
- type: prometheus
  name: {{ $backlog.lane | replace "." "-" }}-{{ $backlog.subscription }}
  metadata:
    # Cloud Monitoring, which answers as a Prometheus does.
    serverAddress: {{ printf "https://monitoring.googleapis.com/v1/projects/%s/location/global/prometheus" $scaling.pubsub.project | quote }}
    query: {{ printf "sum(pubsub_googleapis_com:subscription_num_undelivered_messages{subscription_id=%q})" $queue | quote }}
    threshold: {{ $messages | quote }}
  authenticationRef: {name: {{ $auth }}}
{{- end }}
{{- end }}
{{- with .one.pool.autoscaling.extraTriggers }}
{{ toYaml . }}
{{- end }}
{{- end -}}
