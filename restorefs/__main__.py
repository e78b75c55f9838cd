"""python -m restorefs"""

from restorefs.cli import main

main(prog_name="restorefs")
