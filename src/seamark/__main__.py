from seamark.cli import main

main()
