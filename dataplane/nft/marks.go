package nft

import "github.com/google/nftables/userdata"

// A rule carries its name as nft's comment, and beside it a mark that nft
// ignores: a digest of all that the rule means. Whoever replaces a rule or
// loads it from a listing drops the mark, so that the rule is no longer ours.
const markType userdata.Type = 0x77

// writeMarks packs name and mark: type, length and value each.
func writeMarks(name, mark string) []byte {
	data := userdata.AppendString(nil, userdata.TypeComment, name)
	return userdata.Append(data, markType, []byte(mark))
}

// readMarks unpacks what writeMarks packed. Others may have written anything.
func readMarks(data []byte) (name, mark string) {
	for len(data) >= 2 {
		typ, n := userdata.Type(data[0]), int(data[1])
		if len(data) < 2+n {
			break
		}
		value := data[2 : 2+n]
		switch {
		case typ == userdata.TypeComment && n > 0:
			name = string(value[:n-1])
		case typ == markType:
			mark = string(value)
		}
		data = data[2+n:]
	}
	return name, mark
}
