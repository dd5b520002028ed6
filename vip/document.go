package vip

import (
	"reflect"
	"slices"
	"unsafe"

	"github.com/weirproject/weir/api"
)

// sameService tells whether two documents of a service say the same.
func sameService(a, b *api.Service) bool {
	return sameBits(a, b) || samePlain(a, b) && sameDeep(a, b)
}

// image is a document without what it points to.
type image [unsafe.Sizeof(api.Service{})]byte

// sameBits tells whether two documents are the same in every bit, and so share
// what they point to. Snapshots that follow each other mostly do, and to find
// that out field by field would take three times as long.
func sameBits(a, b *api.Service) bool {
	return *(*image)(unsafe.Pointer(a)) == *(*image)(unsafe.Pointer(b))
}

// samePlain compares what needs no pointer.
func samePlain(a, b *api.Service) bool {
	return a.Affinity == b.Affinity && a.SlowStart == b.SlowStart && a.MaxConnections == b.MaxConnections &&
		a.Drain == b.Drain && a.FailOpen == b.FailOpen && a.Name == b.Name && a.Namespace == b.Namespace &&
		a.Protocol == b.Protocol && a.Balance == b.Balance && a.AffinityBy == b.AffinityBy && a.Prefer == b.Prefer
}

func sameDeep(a, b *api.Service) bool {
	return slices.Equal(a.VIPs, b.VIPs) && slices.EqualFunc(a.Backends, b.Backends, sameBackend) &&
		reflect.DeepEqual(a.Health, b.Health) && reflect.DeepEqual(a.Edge, b.Edge) && reflect.DeepEqual(a.Outlier, b.Outlier)
}

func sameBackend(a, b api.Backend) bool {
	return a.Address == b.Address && a.EffectiveWeight() == b.EffectiveWeight() && a.Node == b.Node && a.State == b.State
}
