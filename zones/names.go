package zones

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// maxSetName leaves room for a suffix of two characters in the 31 that the
// names of sets have on every kernel that knows nftables, and in ipset.
const maxSetName = 29

// setName gives the set of a zone a name that packet filters take: it starts
// with a letter, is short enough and belongs to this zone alone. Zones are DNS
// labels, so a name with an underscore can be no other zone's.
func setName(zone string) string {
	if c := zone[0]; c < 'a' || c > 'z' {
		zone = "z_" + zone
	}
	return shorten(zone)
}

// The sets that are no zone's. The first three have an underscore and are no
// zone's therefore; the others begin with a word and an underscore.
const (
	zonedSet  = "every_zone"
	insideSet = "all_inside"
	nodesSet  = "all_nodes"
	localSet  = "local_apps"
	ownSet    = "own_peers"
)

// namedSet names the set of a list, service or endpoint: unique for each kind
// and key, since dots are no part of labels, nor are underscores.
func namedSet(kind, key string) string {
	return shorten(kind + "_" + strings.ReplaceAll(key, ".", "_"))
}

// hashedSet names a set by its contents.
func hashedSet(kind, content string) string {
	sum := sha256.Sum256([]byte(content))
	return kind + "_" + hex.EncodeToString(sum[:6])
}

func shorten(name string) string {
	if len(name) <= maxSetName {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	hash := hex.EncodeToString(sum[:4])
	return name[:maxSetName-len(hash)-1] + "_" + hash
}
