{# What stoq found, for people. Everything that is printed by {{ … }} is made safe for terminals unless escape = "none". #}
scan {{ response.scan_id }} of {{ response.time }} UTC{% if not response.complete %} (PARTIAL){% endif %}

{% if response.tenant is defined %}tenant: {{ response.tenant }}
{% endif %}
{% if response.request_meta.source %}source: {{ response.request_meta.source }}
{% endif %}
payloads: {{ response.results | length }}, errors: {{ response.errors | length }}

{% for payload in response.results %}
{% set name = payload.payload_meta.extra_data.filename %}
[{{ loop.index }}] {{ name or "(no name)" }}, {{ payload.size }} bytes{% if payload.extracted_by %}, extracted by {{ payload.extracted_by | join(", ") }}{% endif %}

    payload  {{ payload.payload_id }}
{% if payload.sha256 %}
    sha256   {{ payload.sha256 }}
{% endif %}
{% if payload.workers.mimetype is defined %}
    type     {{ payload.workers.mimetype.mimetype }}
{% endif %}
{% if payload.workers.yara is defined %}
{% for match in payload.workers.yara.matches %}
    match    {{ match.rule }}{% if match.tags %} ({{ match.tags | join(", ") }}){% endif %}

{% endfor %}
{% endif %}
    ran      {{ payload.plugins_run.workers | join(", ") }}
{% for finding in payload.findings %}
    finding  {{ finding.kind }}: {{ finding.detail }}
{% endfor %}
{% for missing in payload.not_run %}
    not run  {{ missing.plugin }}: {{ missing.reason }}
{% endfor %}
{% endfor %}
{% for error in response.errors %}
error: {% if error.plugin_name %}{{ error.plugin_name }}: {% endif %}{{ error.error }}
{% endfor %}
