"""nkform: declarative provisioning of netkit and veth pairs and their BPF program chains."""

__version__ = "0.1.0"
