// Package testenv makes data centers in a box. It is the engine of weir-lab
// and of every test that needs real hosts: each host of a lab is a network,
// mount and UTS namespace with a cgroup of its own, and the wires between the
// hosts live in one more network namespace, so that the machine's own
// namespace gets no link, address, route or rule.
//
// A lab is plain kernel state held by processes in its cgroups. Whoever ends
// those processes ends the lab: namespaces, links, mounts and pinned eBPF
// objects go with the last process that uses them. Down needs nothing else, so
// it also removes what a crashed Up left behind.
//
// The package also says what a test needs from the machine: NeedRoot,
// NeedNetns, NeedBPF.
package testenv
