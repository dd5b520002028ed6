package executor

import (
	"errors"
	"fmt"
	"os/user"
	"strconv"
	"strings"

	"github.com/weirproject/weir/agent/executor/shim"
)

// FindUser finds a user of the node by name or number, root when it is empty. A
// number need not be known, and may have a group behind it: 1000:1000.
func FindUser(name string) (shim.User, error) {
	if name == "" {
		return shim.User{}, nil
	}
	first, group, grouped := strings.Cut(name, ":")
	if uid, err := strconv.Atoi(first); err == nil && uid >= 0 {
		who := shim.User{UID: uid, GID: uid}
		if grouped {
			if who.GID, err = strconv.Atoi(group); err != nil {
				return who, fmt.Errorf("find user %s: the group is no number", name)
			}
		}
		return who, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return shim.User{}, fmt.Errorf("find user %s: %w", name, err)
	}
	var who shim.User
	var faults [2]error
	who.UID, faults[0] = strconv.Atoi(u.Uid)
	who.GID, faults[1] = strconv.Atoi(u.Gid)
	ids, err := u.GroupIds()
	for _, id := range ids {
		if n, err := strconv.Atoi(id); err == nil {
			who.Groups = append(who.Groups, n)
		}
	}
	return who, errors.Join(faults[0], faults[1], err)
}
