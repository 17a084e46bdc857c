# shellcheck shell=bash
# Runs commands in Debian's user-mode Linux, an ordinary process whose kernel has IPVS: sourced after common.sh.
#
# `uml_fetch PACKAGE...` unpacks it with what it needs; `in_uml FILE` runs the shell script FILE as its first program, with
# the system's files (read-only), the modules of IPVS loaded, and 10.0.0.0/8, 192.0.2.0/24 and 2001:db8::/32 behind a
# device that answers nothing. It prints what the script prints.

uml_fetch() {
    deb user-mode-linux kmod "$@"
}

in_uml() {
    local root=$tmp/root kernel=/usr/bin/linux.uml modules=/usr/lib/uml/modules kmod
    if [ -e "$root/usr/bin/linux.uml" ]; then
        kernel=$root/usr/bin/linux.uml modules=$root/usr/lib/uml/modules
    fi
    kmod=$(PATH=$root/bin:$root/usr/bin:/bin:/usr/bin command -v kmod)
    mkdir -p "$tmp/uml/lib"
    ln -sfn "$modules" "$tmp/uml/lib/modules"
    cat >"$tmp/uml/init" <<I
#!/bin/bash
exec 2>&1
export PATH=$root/usr/sbin:$root/sbin:$root/usr/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
ln -s $kmod /run/modprobe
for module in ip_vs ip_vs_rr ip_vs_wrr ip_vs_lc ip_vs_wlc ip_vs_sh ip_vs_dh ip_vs_mh ip_vs_sed ip_vs_nq ip_vs_lblc \
    ip_vs_lblcr ip_vs_fo ip_vs_ovf ip_vs_pe_sip tun; do
    /run/modprobe -d $tmp/uml \$module 2>/dev/null
done
ip link set lo up
mkdir -p /run/net
ip tuntap add d0 mode tun 2>/dev/null
ip link set d0 up
ip addr add 10.255.255.254/8 dev d0
ip -6 addr add 2001:db8::ffff/32 dev d0 nodad
echo BEGIN
. $1
echo END
poweroff -f >/dev/null 2>&1
I
    chmod +x "$tmp/uml/init"
    # shellcheck disable=SC2094 # nothing reads what it writes
    timeout "${UML_SECONDS:-120}" "$kernel" mem=256M root=/dev/root rootfstype=hostfs rootflags=/ ro \
        init="$tmp/uml/init" con=null con0=null,fd:1 quiet </dev/null 2>/dev/null |
        sed -n '/^BEGIN\r*$/,/^END\r*$/{/^BEGIN\r*$/d;/^END\r*$/d;s/\r$//;p}'
}

# keepalived_in_uml FILE: starts keepalived with FILE, and writes its log and `ipvsadm -Sn` to the file `said`.
keepalived_in_uml() {
    cat >script <<S
set -m
keepalived --dont-fork --check --log-console --log-detail --no-syslog --use-file $1 --pid /run/p \
    --checkers_pid /run/c >/run/log 2>&1 &
for _ in \$(seq 100); do
    if grep -q 'Activating BFD' /run/log; then break; fi
    sleep 0.1
done
ipvsadm -Sn
kill %1
wait
cat /run/log
S
    in_uml "$PWD/script" >said
}
