"""Do all runtimes of exported files compute what torch does?"""
