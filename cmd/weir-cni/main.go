// Command weir-cni is the CNI plugin of Weir: container runtimes call it to have
// their containers attached to the node's networks. The agent does the work, and
// weir-cni asks it over its socket.
package main

import (
	"os"

	"github.com/containernetworking/cni/pkg/skel"
	cniversion "github.com/containernetworking/cni/pkg/version"

	"github.com/weirproject/weir/version"
)

func main() {
	funcs := skel.CNIFuncs{Add: add, Del: del, Check: check, GC: gc, Status: status}
	versions := cniversion.PluginSupports("0.3.1", "0.4.0", "1.0.0", "1.1.0")
	if err := skel.PluginMainFuncsWithError(funcs, versions, "weir-cni "+version.String()+": attaches containers to the networks of this node's weir-agent"); err != nil {
		if err.Print() != nil {
			os.Exit(2)
		}
		os.Exit(1)
	}
}
