package dataplane

// The marks of the kernel objects that Weir makes. This list is complete: what
// bears none of these marks is not ours, and "weir-agent cleanup" leaves it.
const (
	// PinRoot is the folder in bpffs with our pinned maps, programs and links.
	// A cgroup program of ours is known by its pinned link.
	PinRoot = "/sys/fs/bpf/weir"
	// TableName is our nftables table, in the inet family.
	TableName = "weir"
	// AddressLabel marks the IPv4 addresses that we put on lo (IFA_LABEL).
	AddressLabel = "lo:weir"
)
