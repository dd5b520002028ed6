// SPDX-License-Identifier: Apache-2.0
// A server that answers every question with one address: the floor that no
// server's work can be below, and an upstream that costs little.
//
// usage: echo ADDRESS PORT TTL BATCH (1: recvfrom and sendto; more: recvmmsg and sendmmsg)
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { MOST = 64, ROOM = 1500, THREADS = 2 };

static struct sockaddr_in at;
static unsigned int ttl;
static int batch;

// reply turns a query into its answer, in place, and gives its length.
static int reply(unsigned char *m, int n)
{
	static const unsigned char opt[11] = {0, 0, 41, 4, 208};
	int end = 12, has_opt = m[11] != 0;

	if (n < 17)
		return 0;
	while (end < n && m[end] != 0)
		end += 1 + m[end];
	end += 5;
	if (end > n || end > ROOM - 32)
		return 0;
	unsigned char a[16] = {0xc0, 12, 0, 1, 0, 1, ttl >> 24, ttl >> 16, ttl >> 8, ttl, 0, 4, 192, 0, 2, 1};
	memcpy(m + end, a, sizeof(a));
	end += sizeof(a);
	if (has_opt) {
		memcpy(m + end, opt, sizeof(opt));
		end += sizeof(opt);
	}
	m[2] = 0x80 | (m[2] & 1);
	m[3] = 0x80;
	m[7] = 1;
	m[11] = has_opt;
	return end;
}

static void *serve(void *unused)
{
	static __thread unsigned char room[MOST][ROOM];
	struct sockaddr_in from[MOST];
	struct iovec vector[MOST];
	struct mmsghdr in[MOST];
	int one = 1, size = 4 << 20, s = socket(AF_INET, SOCK_DGRAM, 0);

	setsockopt(s, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
	setsockopt(s, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	if (bind(s, (struct sockaddr *)&at, sizeof(at)))
		exit(1);
	for (;;) {
		if (batch == 1) {
			socklen_t len = sizeof(from[0]);
			int n = recvfrom(s, room[0], ROOM, 0, (struct sockaddr *)&from[0], &len);
			if (n > 0 && (n = reply(room[0], n)) > 0)
				sendto(s, room[0], n, 0, (struct sockaddr *)&from[0], len);
			continue;
		}
		for (int i = 0; i < batch; i++) {
			vector[i] = (struct iovec){room[i], ROOM};
			in[i] = (struct mmsghdr){.msg_hdr = {.msg_name = &from[i], .msg_namelen = sizeof(from[i]), .msg_iov = &vector[i], .msg_iovlen = 1}};
		}
		int n = recvmmsg(s, in, batch, MSG_WAITFORONE, NULL), out = 0;
		for (int i = 0; i < n; i++) {
			int length = reply(room[i], in[i].msg_len);
			if (length == 0)
				continue;
			vector[i].iov_len = length;
			in[out++] = in[i];
		}
		if (out > 0)
			sendmmsg(s, in, out, 0);
	}
	return unused;
}

int main(int argc, char **argv)
{
	pthread_t threads[THREADS];

	if (argc != 5)
		return 2;
	at = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
	inet_pton(AF_INET, argv[1], &at.sin_addr);
	ttl = atoi(argv[3]);
	batch = atoi(argv[4]);
	if (batch < 1 || batch > MOST)
		return 2;
	for (int i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, serve, NULL);
	pthread_join(threads[0], NULL);
	return 0;
}
