{{- /* SPDX-License-Identifier: Apache-2.0 */}}
{{- /*
Makes .Values what the templates read: what stands below `cni:` moves to the top, and what was not set is
taken from the platform's file. Every template begins with this; a second time it changes nothing.
*/}}
{{- define "ambient-cni.values" -}}
{{- with .Values.cni }}
{{- $_ := mustMergeOverwrite $.Values (deepCopy .) }}
{{- end }}
{{- $_ := unset .Values "cni" }}
{{- /* `global:` with nothing below it is null, and null takes the defaults away. */}}
{{- range list "ambient" "bpffs" "global" "logging" "repair" "resourceQuotas" }}
{{- if not (kindIs "map" (get $.Values .)) }}
{{- fail (printf "%s: has nothing below it: leave it out, or name its values" .) }}
{{- end }}
{{- end }}
{{- $platform := coalesce .Values.platform .Values.global.platform "" }}
{{- if and (not $platform) (contains "-gke" .Capabilities.KubeVersion.Version) }}
{{- $platform = "gke" }}
{{- end }}
{{- $layers := list ($.Files.Get "platforms/default.yaml" | fromYaml) }}
{{- if $platform }}
{{- $file := $.Files.Get (printf "platforms/%s.yaml" $platform) }}
{{- if not $file }}
{{- $known := list }}
{{- range $path, $_ := $.Files.Glob "platforms/*.yaml" }}
{{- $known = append $known (base $path | trimSuffix ".yaml") }}
{{- end }}
{{- fail (printf "global.platform: %q is unknown; known are %s" $platform (join ", " $known)) }}
{{- end }}
{{- $layers = prepend $layers ($file | fromYaml) }}
{{- end }}
{{- range $layers }}
{{- include "ambient-cni.fill" (list $.Values .) }}
{{- end }}
{{- end }}

{{- /* Sets what the first map lacks from the second. merge would take `false` for lacking. */}}
{{- define "ambient-cni.fill" -}}
{{- $into := index . 0 }}
{{- range $key, $value := index . 1 }}
{{- $given := get $into $key }}
{{- if or (not (hasKey $into $key)) (kindIs "invalid" $given) }}
{{- $_ := set $into $key $value }}
{{- else if and (kindIs "map" $given) (kindIs "map" $value) }}
{{- include "ambient-cni.fill" (list $given $value) }}
{{- end }}
{{- end }}
{{- end }}

{{- /* The whole reference of the image. */}}
{{- define "ambient-cni.image" -}}
{{- if contains "/" .Values.image }}
{{- .Values.image }}
{{- else }}
{{- $hub := required "image: name the image with its registry, such as registry.example/ambient-cni:0.1.0 (or set hub)" .Values.hub }}
{{- $tag := .Values.tag | default .Chart.AppVersion }}
{{- printf "%s/%s:%v%s" $hub .Values.image $tag (empty .Values.variant | ternary "" (printf "-%s" .Values.variant)) }}
{{- end }}
{{- end }}

{{- /* Labels of every object. */}}
{{- define "ambient-cni.labels" -}}
app: istio-cni
release: {{ .Release.Name | quote }}
istio.io/rev: {{ .Values.revision | default "default" | quote }}
install.operator.istio.io/owning-resource: {{ .Values.ownerName | default "unknown" | quote }}
operator.istio.io/component: Cni
{{ include "ambient-cni.podLabels" . }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "ambient-cni.podLabels" -}}
app.kubernetes.io/name: istio-cni
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: istio
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- /* "true" when objects of this scope (cluster or namespace) are to be made: (list . "cluster"). */}}
{{- define "ambient-cni.makes" -}}
{{- $scope := (index . 0).Values.global.resourceScope | default "all" }}
{{- if has $scope (list "all" (index . 1)) }}true{{ end }}
{{- end }}
