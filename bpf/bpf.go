// Package bpf holds the eBPF programs in C, the objects compiled from them and
// their generated Go bindings, all committed: building Weir needs no clang. It
// attaches nothing and reads no map; dataplane/program does.
package bpf

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -type reason -type balance -type backend_state -type service_flag Balance balance.c -- -O2 -mcpu=v3 -Wall -Wextra -Werror -Wno-sign-compare -Wno-unused-parameter
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types Reset reset.c -- -O2 -mcpu=v3 -Wall -Wextra -Werror -Wno-sign-compare -Wno-unused-parameter
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -type fate -type role Deliver deliver.c -- -O2 -mcpu=v3 -Wall -Wextra -Werror -Wno-sign-compare -Wno-unused-parameter
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -type edge_reason -type edge_deliver -type packet_fault -type backend_state Edge edge.c -- -O2 -mcpu=v3 -Wall -Wextra -Werror -Wno-sign-compare -Wno-unused-parameter
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -type nat_result EdgeNat edge_nat.c -- -O2 -mcpu=v3 -Wall -Wextra -Werror -Wno-sign-compare -Wno-unused-parameter
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -type dns_fate -type dns_set -type dns_range DnsAnswer dns_answer.c -- -O2 -mcpu=v3 -Wall -Wextra -Werror -Wno-sign-compare -Wno-unused-parameter
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -type address -type flow_flag -type trace_kind -type flow_event -type drop_event Trace trace.c -- -O2 -mcpu=v3 -Wall -Wextra -Werror -Wno-sign-compare -Wno-unused-parameter
