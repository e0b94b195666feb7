"""Exchanges: the only code that knows a wire format or an address of one."""
