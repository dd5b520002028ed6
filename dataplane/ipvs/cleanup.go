package ipvs

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/weirproject/weir/dataplane/ipvs/guard"
)

// CleanupOptions say what Cleanup cannot find in the kernel.
type CleanupOptions struct {
	// Ranges are those of the tables that were set: services in them are ours.
	Ranges []netip.Prefix
	// SysctlFile is that of Options.
	SysctlFile string
}

// Cleanup removes from the thread's network namespace what a Balancer has made
// there: services, virtual addresses, the link and the packet rules; and it
// restores the sysctls. It tells how many objects there were. It loads no
// module: without IPVS there is nothing of it.
func Cleanup(ctx context.Context, o CleanupOptions) (removed int, err error) {
	l, err := existingLink()
	if err != nil {
		return 0, err
	}
	if loaded() {
		n, err := removeServices(ctx, o.Ranges, l)
		if removed += n; err != nil {
			return removed, err
		}
	}
	if l.device != nil {
		removed += len(l.routes)
		for a := range l.routes {
			if err := l.remove(a); err != nil {
				return removed, err
			}
		}
		if err := netlink.LinkDel(l.device); err != nil {
			return removed, fmt.Errorf("remove link %s: %w", LinkName, err)
		}
		removed++
	}
	found, err := guard.Cleanup()
	if found {
		removed++
	}
	if err != nil {
		return removed, err
	}
	n, err := sysctls{dir: sysctlDir, file: o.SysctlFile}.restore()
	return removed + n, err
}

// removeServices removes those whose addresses are ours.
func removeServices(ctx context.Context, ranges []netip.Prefix, l *link) (removed int, err error) {
	k, err := open()
	if err != nil {
		return 0, err
	}
	defer k.close()
	held, err := k.services()
	if err != nil {
		return 0, err
	}
	_, steps := plan(nil, held, ours(ranges, l))
	for _, s := range steps {
		if err := ctx.Err(); err != nil {
			return removed, err
		}
		if err := k.do(s); err != nil {
			return removed, fmt.Errorf("remove ipvs service %s: %w", s.at, err)
		}
		removed++
	}
	return removed, nil
}

// existingLink is openLink without making it; the device is nil then.
func existingLink() (*link, error) {
	device, err := netlink.LinkByName(LinkName)
	l := &link{}
	if err == nil {
		l.device = device
	} else if !errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, fmt.Errorf("find link %s: %w", LinkName, err)
	}
	return l, l.read()
}
