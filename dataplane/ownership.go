package dataplane

// The marks of the kernel objects that Weir makes. This list is complete: what
// bears none of these marks is not ours, and "weir-agent cleanup" leaves it.
const (
	// PinRoot is the folder in bpffs with our pinned maps, programs and links.
	// A program of ours at a cgroup or an interface is known by its pinned link.
	PinRoot = "/sys/fs/bpf/weir"
	// TableName is our nftables table, in the inet family.
	TableName = "weir"
	// ChainPrefix begins the names of our iptables chains; SetPrefix4 and SetPrefix6
	// those of our ipsets.
	ChainPrefix, SetPrefix4, SetPrefix6 = "WEIR-", "weir4-", "weir6-"
	// BalancerTableName is our nftables table beside IPVS, in the inet family.
	BalancerTableName = "weir-vip"
	// BalancerLink is the link whose local routes make virtual addresses ours
	// where IPVS balances; the routes have the protocol BalancerProtocol
	// (rtm_protocol), and our IPVS services bear BalancerFlags.
	BalancerLink     = "weir-vip"
	BalancerProtocol = 119
	BalancerFlags    = 0x57000000
	// DeliveredMark is the bit of a packet's mark (SO_MARK, skb->mark) that says
	// that it came out of an edge node's tunnel: the zones of that node's edge have
	// judged it. The bit is chosen apart from those of Kubernetes (0x4000, 0x8000),
	// Cilium (0x0f00), Calico (0xffff0000) and Tailscale (0xff0000).
	DeliveredMark = 0x1000
	// ContainerTableName is our nftables table for container networks, in the inet
	// family. Their bridges, tunnels and ends of veth pairs are known by how their
	// names begin and by their kinds, their routes and rules by ContainerProtocol
	// (rtm_protocol); the rules look up ContainerRoutes. Rules of iptables that let
	// containers' packets be forwarded bear the table's name as their comment.
	ContainerTableName = "weir-containers"
	BridgePrefix       = "weirb-"
	TunnelPrefix       = "weirx"
	VethPrefix         = "weirv"
	ContainerProtocol  = 120
	ContainerRoutes    = 7765
	// AddressLabel marks the IPv4 addresses that we put on lo (IFA_LABEL).
	// IPv6 ones have no label; AddressPriority marks those (IFA_RT_PRIORITY).
	AddressLabel    = "lo:weir"
	AddressPriority = 0x57656972
)
