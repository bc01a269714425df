#!/bin/sh
# Furnishes the private namespaces that it is started in as a machine for kubelets, and stays as their
# first process. Nothing has to be undone: mounts, addresses and rules go with the namespaces.
set -eu
dir=$1 packages=$2 pause=$3 addresses=$4

# What kubelets mount for pods must reach containerd.
mount --make-rshared /
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p "$dir/var/upper" "$dir/var/work"
mount -t overlay -o "lowerdir=/var,upperdir=$dir/var/upper,workdir=$dir/var/work" overlay /var
mkdir -p /var/lib/kubelet /var/lib/cni /var/log/pods /var/log/containers

# Kubelets insist on values that belong to the whole machine: they see them, the machine keeps its own.
mkdir /run/sysctl
pretend() {
    echo "$2" >"/run/sysctl/${1##*/}"
    mount --bind "/run/sysctl/${1##*/}" "/proc/sys/$1"
}
pretend vm/overcommit_memory 1
pretend kernel/panic 10
pretend kernel/panic_on_oops 1

ip link set lo up
ip link add node0 type bridge
for address in $addresses; do
    ip address add "$address/24" dev node0
done
ip link set node0 up
# Service addresses are rewritten on the way out: there has to be one.
ip route add default dev node0
echo 1 >/proc/sys/net/ipv4/ip_forward

# The packages are unpacked, not installed: their programs need to be told where their libraries are.
libraries=$(echo "$packages"/usr/lib/*-linux-gnu)
mkdir /run/tools
for family in iptables ip6tables; do
    for tool in "$family" "$family-save" "$family-restore"; do
        cat >"/run/tools/$tool" <<SCRIPT
#!/bin/sh
export LD_LIBRARY_PATH=$libraries XTABLES_LIBDIR=$libraries/xtables
exec $packages/usr/sbin/xtables-legacy-multi $tool "\$@"
SCRIPT
        chmod +x "/run/tools/$tool"
    done
done
ln -s "$packages/usr/sbin/runc" /run/tools/runc
: >/run/resolv.conf

touch "$dir/furnished"
exec "$pause"
