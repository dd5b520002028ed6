package deliver

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/internal/pin"
)

// hook is a place at an interface where one of our programs runs.
type hook struct {
	name, program string
	attach        ebpf.AttachType
}

// hooks in the order in which they are attached: answers get their address
// before the first packet is delivered.
var hooks = [...]hook{
	{"egress", bpf.DeliverProgWeirAnswer, ebpf.AttachTCXEgress},
	{"ingress", bpf.DeliverProgWeirDeliver, ebpf.AttachTCXIngress},
}

// linkName is that of the link at a hook of an interface. It has the index, since
// names of interfaces may have dots, which bpffs refuses.
func linkName(index int, hook string) string { return fmt.Sprintf("%d-%s", index, hook) }

// setLinks makes every hook of the interfaces run our program, by a pinned
// link, and no other interface.
func (d *Deliverer) setLinks(interfaces []netInterface, c *dataplane.Changes) error {
	wanted := map[string]bool{}
	for _, h := range hooks {
		for _, i := range interfaces {
			wanted[linkName(i.index, h.name)] = true
			if err := d.setLink(i.index, h, c); err != nil {
				return fmt.Errorf("attach to %s of %s: %w", h.name, i.name, err)
			}
		}
	}
	removed, err := d.links.Keep(func(name string) bool { return wanted[name] })
	c.Removed += removed
	return err
}

func (d *Deliverer) setLink(index int, h hook, c *dataplane.Changes) error {
	program := d.programs.Programs[h.program]
	return d.links.Set(linkName(index, h.name), pin.Hook{
		Program: program,
		At: func(i *link.Info) bool {
			at := i.TCX()
			return at != nil && at.Ifindex == uint32(index) && uint32(at.AttachType) == uint32(h.attach)
		},
		Attach: func() (link.Link, error) {
			return link.AttachTCX(link.TCXOptions{Interface: index, Program: program, Attach: h.attach})
		},
	}, func(repair bool, kind, name string) { d.count(c, repair, kind, name) })
}
