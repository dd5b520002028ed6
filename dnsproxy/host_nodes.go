package dnsproxy

import (
	"fmt"

	"github.com/weirproject/weir/api"
)

// numbered claims master0, master1 and so on, as Mesos-DNS numbers the masters:
// here in the order of their names, so that a number stays while nobody comes or
// goes before it.
func (c *claims) numbered(domain string, controllers []*api.Node) {
	c.asDerived("the nodes", rankShared)
	for i, n := range controllers {
		c.addresses(c.below(domain, fmt.Sprint("master", i)), n.Addresses)
	}
}
