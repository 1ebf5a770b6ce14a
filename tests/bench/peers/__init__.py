"""The same work on what users could pick instead, through its own client. None of it is a dependency of ours."""
