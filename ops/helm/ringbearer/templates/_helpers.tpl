{{- define "ringbearer.name" -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "ringbearer.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "ringbearer.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "ringbearer.image" -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}

{{- define "ringbearer.secret" -}}
{{- .Values.existingSecret | default (include "ringbearer.name" .) -}}
{{- end -}}

{{- define "ringbearer.environment" -}}
- name: RINGBEARER_DATABASE_URL
  valueFrom: { secretKeyRef: { name: {{ include "ringbearer.secret" . }}, key: database-url } }
- name: RINGBEARER_SECRET_KEY
  valueFrom: { secretKeyRef: { name: {{ include "ringbearer.secret" . }}, key: secret-key } }
- name: RINGBEARER_ADMIN_KEY
  valueFrom: { secretKeyRef: { name: {{ include "ringbearer.secret" . }}, key: admin-key } }
{{- if or .Values.existingSecret .Values.secret.redisUrl }}
- name: RINGBEARER_REDIS_URL
  valueFrom: { secretKeyRef: { name: {{ include "ringbearer.secret" . }}, key: redis-url, optional: true } }
{{- end }}
- name: RINGBEARER_HOST
  value: "0.0.0.0"
- name: RINGBEARER_DATA_DIR
  value: /var/lib/ringbearer
- name: RINGBEARER_LOG_FORMAT
  value: json
- name: RINGBEARER_STOP_GRACE
  value: {{ .Values.worker.stopGraceSeconds | quote }}
{{- range $name, $value := .Values.settings }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{- define "ringbearer.pod" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: { type: RuntimeDefault }
automountServiceAccountToken: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
  - name: data
    emptyDir: {}
  - name: tmp
    emptyDir: {}
  {{- if .Values.caSecret }}
  - name: tls
    secret:
      secretName: {{ .Values.caSecret }}
      defaultMode: 288
  {{- end }}
{{- end -}}

{{- define "ringbearer.container" -}}
image: {{ include "ringbearer.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
volumeMounts:
  - { name: data, mountPath: /var/lib/ringbearer }
  - { name: tmp, mountPath: /tmp }
  {{- if .Values.caSecret }}
  - { name: tls, mountPath: /etc/ringbearer/tls, readOnly: true }
  {{- end }}
{{- end -}}
