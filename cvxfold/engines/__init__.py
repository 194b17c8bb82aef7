"""The engines that solve and differentiate batches of cone programs; outside of here, only their protocol."""
