// SPDX-License-Identifier: Apache-2.0
// Makes a set of addresses, as istio-cni does on the host, with one address in it: NAME ADDRESS.
#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/ipset/ip_set.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct request {
    struct nlmsghdr header;
    struct nfgenmsg fixed;
    char attributes[256];
};

static void put(struct request* r, unsigned short type, const void* data, unsigned short size) {
    struct nlattr* attribute = (void*)((char*)r + r->header.nlmsg_len);

    attribute->nla_type = type;
    attribute->nla_len = NLA_HDRLEN + size;
    memcpy((char*)attribute + NLA_HDRLEN, data, size);
    r->header.nlmsg_len += NLA_ALIGN(attribute->nla_len);
}

static struct request request(int command, unsigned char family, const char* name) {
    struct request r = {.header = {.nlmsg_len = NLMSG_LENGTH(sizeof(struct nfgenmsg))}};
    unsigned char protocol = 6;

    r.header.nlmsg_type = NFNL_SUBSYS_IPSET << 8 | command;
    r.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE;
    r.fixed.nfgen_family = family;
    put(&r, IPSET_ATTR_PROTOCOL, &protocol, sizeof(protocol));
    put(&r, IPSET_ATTR_SETNAME, name, strlen(name) + 1);
    return r;
}

static int ask(int socket, struct request* r) {
    struct {
        struct nlmsghdr header;
        struct nlmsgerr error;
        char rest[512];
    } answer;

    if (send(socket, r, r->header.nlmsg_len, 0) < 0 || recv(socket, &answer, sizeof(answer), 0) < 0)
        return errno;
    return -answer.error.error;
}

int main(int argc, char** argv) {
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER), error;
    unsigned char address[16], family, version = 0, size;
    char nested[64];
    struct nlattr *data = (void*)nested, *ip = (void*)(nested + NLA_HDRLEN);
    struct request r;

    if (argc != 3 || fd < 0) return 2;
    family = strchr(argv[2], ':') ? NFPROTO_IPV6 : NFPROTO_IPV4;
    size = family == NFPROTO_IPV6 ? 16 : 4;
    if (inet_pton(family == NFPROTO_IPV6 ? AF_INET6 : AF_INET, argv[2], address) != 1) return 2;
    r = request(IPSET_CMD_CREATE, family, argv[1]);
    put(&r, IPSET_ATTR_TYPENAME, "hash:ip", sizeof("hash:ip"));
    put(&r, IPSET_ATTR_REVISION, &version, sizeof(version));
    put(&r, IPSET_ATTR_FAMILY, &family, sizeof(family));
    put(&r, IPSET_ATTR_DATA | NLA_F_NESTED, "", 0);
    error = ask(fd, &r);
    if (!error) {
        r = request(IPSET_CMD_ADD, family, argv[1]);
        ip->nla_type = (family == NFPROTO_IPV6 ? IPSET_ATTR_IPADDR_IPV6 : IPSET_ATTR_IPADDR_IPV4) |
                       NLA_F_NET_BYTEORDER;
        ip->nla_len = NLA_HDRLEN + size;
        memcpy((char*)ip + NLA_HDRLEN, address, size);
        data->nla_type = IPSET_ATTR_IP | NLA_F_NESTED;
        data->nla_len = NLA_HDRLEN + NLA_ALIGN(ip->nla_len);
        put(&r, IPSET_ATTR_DATA | NLA_F_NESTED, nested, data->nla_len);
        error = ask(fd, &r);
    }
    if (error) fprintf(stderr, "%s: error %d\n", argv[1], error);
    return error ? 1 : 0;
}
