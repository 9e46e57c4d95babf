// Package manifests_test holds the Kubernetes manifests to the API's own types, without a cluster: `kubectl kustomize` is done by its library, and
// every object is decoded strictly into the type that the API has for it. It is a module of its own, so that the program's go.mod
// has none of this: go test ./... in this folder, or bash .ci/run kubernetes.
package manifests_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// cluster is what the folder makes.
type cluster struct {
	namespace  corev1.Namespace
	service    corev1.Service
	nodes      appsv1.StatefulSet
	disruption policyv1.PodDisruptionBudget
	traffic    networkingv1.NetworkPolicy
	network    corev1.ConfigMap
}

func build(t *testing.T) cluster {
	t.Helper()
	objects, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), "..")
	if err != nil {
		t.Fatal(err)
	}
	var c cluster
	into := map[string]any{
		"v1/Namespace": &c.namespace, "v1/Service": &c.service, "apps/v1/StatefulSet": &c.nodes, "policy/v1/PodDisruptionBudget": &c.disruption,
		"networking.k8s.io/v1/NetworkPolicy": &c.traffic, "v1/ConfigMap": &c.network,
	}
	for _, o := range objects.Resources() {
		kind := o.GetApiVersion() + "/" + o.GetKind()
		v := into[kind]
		if v == nil {
			t.Fatalf("%s: nobody looks at it, or there are two", kind)
		}
		delete(into, kind)
		raw, err := o.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.UnmarshalStrict(raw, v); err != nil {
			t.Errorf("%s: %v\n%s", kind, err, raw)
		}
	}
	for kind := range into {
		t.Errorf("no %s", kind)
	}
	return c
}

func selects(t *testing.T, s *metav1.LabelSelector, pod map[string]string) bool {
	t.Helper()
	sel, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		t.Fatal(err)
	}
	return !sel.Empty() && sel.Matches(labels.Set(pod))
}

// What refers to one another does: labels, ports, volumes, the name of the seed.
func TestManifests(t *testing.T) {
	c := build(t)
	for _, m := range []metav1.ObjectMeta{c.service.ObjectMeta, c.nodes.ObjectMeta, c.disruption.ObjectMeta, c.traffic.ObjectMeta, c.network.ObjectMeta} {
		if m.Namespace != c.namespace.Name {
			t.Errorf("%s is in namespace %q", m.Name, m.Namespace)
		}
	}
	pod := c.nodes.Spec.Template
	if !selects(t, c.nodes.Spec.Selector, pod.Labels) || !selects(t, c.disruption.Spec.Selector, pod.Labels) || !selects(t, &c.traffic.Spec.PodSelector, pod.Labels) ||
		!selects(t, &metav1.LabelSelector{MatchLabels: c.service.Spec.Selector}, pod.Labels) {
		t.Error("a selector does not select the pods")
	}
	if len(pod.Spec.Containers) != 1 {
		t.Fatalf("%d containers", len(pod.Spec.Containers))
	}
	node := pod.Spec.Containers[0]
	ports := map[string]corev1.ContainerPort{}
	for _, p := range node.Ports {
		ports[p.Name] = p
	}
	for _, p := range c.service.Spec.Ports {
		if to, ok := ports[p.TargetPort.StrVal]; !ok || to.ContainerPort != p.Port || protocol(to.Protocol) != protocol(p.Protocol) {
			t.Errorf("the service's port %s leads to %+v", p.Name, to)
		}
	}
	for _, rule := range c.traffic.Spec.Ingress {
		for _, p := range rule.Ports {
			if to, ok := ports[p.Port.StrVal]; !ok || p.Protocol != nil && protocol(*p.Protocol) != protocol(to.Protocol) {
				t.Errorf("the policy lets in %s, which is %+v", p.Port, to)
			}
		}
	}
	// Headless, and there before anybody is ready: else the first pods would wait for one another for ever.
	if c.service.Spec.ClusterIP != corev1.ClusterIPNone || !c.service.Spec.PublishNotReadyAddresses || c.nodes.Spec.ServiceName != c.service.Name {
		t.Errorf("the service is no seed: %+v", c.service.Spec)
	}
	if c.nodes.Spec.PodManagementPolicy != appsv1.ParallelPodManagement {
		t.Error("the pods wait for one another")
	}
	if c.disruption.Spec.MaxUnavailable == nil || *c.disruption.Spec.MaxUnavailable != intstr.FromInt32(1) {
		t.Error("more than one node may be taken away at once")
	}

	env := map[string]corev1.EnvVar{}
	at := map[string]int{}
	for i, e := range node.Env {
		env[e.Name], at[e.Name] = e, i
	}
	if env["DUNLIN_P2P_DNS_SEEDS"].Value != c.service.Name {
		t.Errorf("the seed is %q, the service %q", env["DUNLIN_P2P_DNS_SEEDS"].Value, c.service.Name)
	}
	if e := env["POD_IP"]; e.ValueFrom == nil || e.ValueFrom.FieldRef == nil || e.ValueFrom.FieldRef.FieldPath != "status.podIP" ||
		!strings.Contains(env["DUNLIN_P2P_ANNOUNCE"].Value, "/ip4/$(POD_IP)/tcp/") || at["POD_IP"] > at["DUNLIN_P2P_ANNOUNCE"] {
		t.Error("a pod does not announce its address") // $(…) refers to what stands before it
	}
	p2p := fmt.Sprint(ports["p2p"].ContainerPort)
	if !strings.Contains(env["DUNLIN_P2P_ANNOUNCE"].Value, "/tcp/"+p2p+",") {
		t.Errorf("announced is %s, the port %s", env["DUNLIN_P2P_ANNOUNCE"].Value, p2p)
	}
	for _, p := range []*corev1.Probe{node.StartupProbe, node.LivenessProbe, node.ReadinessProbe} {
		if p == nil || p.HTTPGet == nil || p.HTTPGet.Port.StrVal != "observe" {
			t.Fatalf("probe %+v", p)
		}
	}
	if env["DUNLIN_RPC_OBSERVE_LISTEN"].Value != fmt.Sprintf(":%d", ports["observe"].ContainerPort) ||
		node.LivenessProbe.HTTPGet.Path != "/livez" || node.StartupProbe.HTTPGet.Path != "/livez" || node.ReadinessProbe.HTTPGet.Path != "/readyz" {
		t.Error("the probes do not meet the port for them")
	}
	if _, remote := env["DUNLIN_RPC_LISTEN"]; remote {
		t.Error("the HTTP interface leaves the pod's loopback")
	}

	volumes := map[string]bool{}
	for _, v := range pod.Spec.Volumes {
		volumes[v.Name] = true
		if v.ConfigMap != nil && v.ConfigMap.Name != c.network.Name {
			t.Errorf("the volume is of ConfigMap %q, there is %q", v.ConfigMap.Name, c.network.Name)
		}
	}
	for _, v := range c.nodes.Spec.VolumeClaimTemplates {
		volumes[v.Name] = true
	}
	mounts := map[string]string{}
	for _, m := range node.VolumeMounts {
		mounts[m.MountPath] = m.Name
		if !volumes[m.Name] {
			t.Errorf("no volume %s", m.Name)
		}
	}
	if mounts["/var/lib/dunlin"] != "data" || mounts["/tmp"] == "" || !strings.HasPrefix(env["DUNLIN_HOME"].Value, "/var/lib/dunlin/") {
		t.Errorf("mounts %v, home %s", mounts, env["DUNLIN_HOME"].Value)
	}
	dir, file := filepath.Split(env["DUNLIN_NETWORK_FILE"].Value)
	if want, err := os.ReadFile("../network.toml"); err != nil || mounts[filepath.Clean(dir)] == "" || c.network.Data[file] != string(want) {
		t.Errorf("the network file is not what is mounted: %v", err)
	} else if !strings.Contains(string(want), "p2p_port = "+p2p+"\n") {
		t.Error("the pods' port is not the network's: behind a name with addresses only nodes are expected there")
	}
}

// What the namespace's profile (restricted) asks of a pod.
func TestRestricted(t *testing.T) {
	c := build(t)
	if c.namespace.Labels["pod-security.kubernetes.io/enforce"] != "restricted" {
		t.Error("the namespace does not ask for it")
	}
	spec := c.nodes.Spec.Template.Spec
	is := func(v *bool, want bool) bool { return v != nil && *v == want }
	s := spec.SecurityContext
	if s == nil || !is(s.RunAsNonRoot, true) || s.RunAsUser == nil || *s.RunAsUser != 65532 || s.FSGroup == nil || *s.FSGroup != 65532 ||
		s.SeccompProfile == nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("pod: %+v", s)
	}
	for _, n := range spec.Containers {
		s := n.SecurityContext
		if s == nil || !is(s.AllowPrivilegeEscalation, false) || !is(s.ReadOnlyRootFilesystem, true) || s.Capabilities == nil ||
			!slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(s.Capabilities.Add) > 0 {
			t.Errorf("container: %+v", s)
		}
	}
	if !is(spec.AutomountServiceAccountToken, false) || spec.HostNetwork || spec.HostPID || spec.HostIPC {
		t.Error("it has more of the cluster or the host than it needs")
	}
	for _, v := range spec.Volumes {
		if v.HostPath != nil {
			t.Errorf("volume %s is the host's", v.Name)
		}
	}
}

func protocol(p corev1.Protocol) corev1.Protocol {
	if p == "" {
		return corev1.ProtocolTCP
	}
	return p
}
