# Starts one machine of the story (tests/newcomer/machine.py) and never returns: sh boot.sh NAME STORE LAYERS [PACKAGES]
# Runs in namespaces of its own for mounts, processes, network, name and control groups; all of it goes with its first process.
set -eu
name=$1 store=$2 layers=$3 packages=${4:-}
root=$store/$name/root

mount -t overlay overlay -o "lowerdir=$layers,upperdir=$store/$name/upper,workdir=$store/$name/work" "$root"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=755 tmpfs "$root/srv"
if [ -n "$packages" ]; then
    mount --bind "$packages" "$root/opt/gmmas-packages"
fi
mount -t proc proc "$root/proc"
# What is set there is set for the whole computer.
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"

if [ "$(stat --file-system --format %T /sys/fs/cgroup)" = cgroup2fs ]; then
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
else
    mount -t tmpfs -o mode=755 tmpfs "$root/sys/fs/cgroup"
    mkdir "$root/sys/fs/cgroup/systemd" "$root/sys/fs/cgroup/unified"
    mount -t cgroup -o none,name=systemd cgroup "$root/sys/fs/cgroup/systemd"
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup/unified"
fi

mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"

hostname "$name"
ip link set lo up
exec chroot "$root" env -i container=gmmas PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --unit=basic.target --log-target=null --show-status=no
