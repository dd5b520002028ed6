package nft

import (
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"golang.org/x/sys/unix"
)

func endpointType(v6 bool) nftables.SetDatatype {
	address := nftables.TypeIPAddr
	if v6 {
		address = nftables.TypeIP6Addr
	}
	return nftables.MustConcatSetType(address, nftables.TypeInetProto, nftables.TypeInetService)
}

// kernelSet is the set as the library takes it.
func kernelSet(name string, s *set) *nftables.Set {
	k := &nftables.Set{Name: name, KeyType: nftables.TypeIPAddr}
	if s.v6 {
		k.KeyType = nftables.TypeIP6Addr
	}
	switch s.kind {
	case addresses:
		k.Interval = true
	case hostClasses:
		k.IsMap, k.DataType = true, nftables.TypeMark
	case classes:
		k.Interval, k.IsMap, k.DataType = true, true, nftables.TypeMark
	case verdicts:
		k.KeyType, k.IsMap, k.DataType, k.KeyByteOrder = nftables.TypeMark, true, nftables.TypeVerdict, binaryutil.NativeEndian
	case endpoints:
		k.KeyType, k.Concatenation = endpointType(s.v6), true
	case learnt:
		k.HasTimeout = true
	case meter:
		k.HasTimeout, k.Dynamic, k.Timeout, k.Size = true, true, meterTimeout, meterSize
	}
	return k
}

func (w *writer) addSet(name string, s *set) {
	k := kernelSet(name, s)
	k.ID = w.id()
	w.newSet(k, 0)
	w.addElements(k, kernelElements(s))
	var stays []nftables.SetElement
	for a, end := range w.stays[name] {
		if left := time.Until(end); left > time.Second {
			stays = append(stays, nftables.SetElement{Key: a.AsSlice(), Timeout: left})
		}
	}
	w.addElements(k, stays)
}

func (w *writer) addElements(k *nftables.Set, all []nftables.SetElement) {
	for chunk := range slices.Chunk(all, elementsPerMessage) {
		w.elements(unix.NFT_MSG_NEWSETELEM, k.Name, k.ID, chunk)
	}
}

// kernelElements are the elements that Set answers for.
func kernelElements(s *set) []nftables.SetElement {
	if s.kind == addresses || s.kind == classes {
		return elements(s.all())
	}
	if s.kind == hosts || s.kind == hostClasses {
		return hostElements(s.all())
	}
	all := make([]nftables.SetElement, len(s.keys))
	for i, key := range s.keys {
		all[i].Key = []byte(key)
		if s.kind == verdicts {
			all[i].Key, all[i].VerdictData = []byte(key[:4]), goTo(key[4:])
		}
	}
	return all
}

// changeElements writes only what differs.
func (w *writer) changeElements(name string, s, stale, fresh *set) {
	k := kernelSet(name, s)
	for chunk := range slices.Chunk(kernelElements(stale), elementsPerMessage) {
		w.elements(unix.NFT_MSG_DELSETELEM, name, 0, chunk)
	}
	w.addElements(k, kernelElements(fresh))
}
